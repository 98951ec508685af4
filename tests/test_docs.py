"""The pages: short, current, every link and command good, and CONTRIBUTING's examples run as they stand."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from config import keys
from config.check import check_override_names
from config.compose import compose_config
from config.schema import register
from lifelong.sweep import prefer_our_presets
from tests.tiny import MODELS, PROJECT, SITES, run_main, tiny_words

PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", PROJECT / "CHANGELOG.md", *PROJECT.glob("docs/*.md")]
GUIDE = (PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def blocks(text: str, language: str) -> list[tuple[str, str]]:
    """The fenced blocks of a language, each with what stands behind the language on its first line."""
    return [(more.strip(), body) for name, more, body in FENCE.findall(text) if name == language]


def commands(path: Path) -> list[str]:
    """The commands of a page's shell blocks, a continued one in one line, without comments."""
    lines = [line for _, body in blocks(path.read_text(encoding="utf-8"), "sh") for line in joined(body)]
    return [line.split(" #")[0].strip() for line in lines if line.split(" #")[0].strip()]


def joined(body: str) -> list[str]:
    """Lines with their continuations; what is written into a file by << END is left out."""
    return re.sub(r"<<END\n.*?\nEND\n", "\n", body, flags=re.DOTALL).replace("\\\n", " ").splitlines()


def anchors(path: Path) -> set[str]:
    """What a link may name behind #: the page's headings as GitHub writes them, and its own marks."""
    text = path.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    return {*plain, *re.findall(r'<a id="([^"]+)">', text)}


# pages


def test_readme_is_short():
    assert len((PROJECT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if link.startswith("https://"):
            continue
        name, _, mark = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {link}"
        assert not mark or mark in anchors(target), f"{page.name}: {link}"


def test_readme_leads_to_every_page():
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    for page in PROJECT.glob("docs/*.md"):
        assert f"](docs/{page.name})" in text, page.name


def test_design_sections_that_docstrings_cite_are_there():
    headings = re.findall(
        r"^##+ ([\d.]+?)\.? ", (PROJECT / "docs" / "design.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    for path in PROJECT.glob("[!.]*/**/*.py"):
        for section in re.findall(r"docs/design\.md, (\d[\d.]*\d|\d)", path.read_text(encoding="utf-8")):
            assert section in headings, f"{path}: docs/design.md, {section}"


def test_keys_page_is_current():
    assert keys.PAGE.read_text(encoding="utf-8") == keys.render(), "write it anew: python -m config.keys"


def test_every_key_has_a_meaning():
    rows = re.findall(r"^\| `([\w.]+)` \|.*\| (.*?) \|$", keys.render(), re.MULTILINE)
    assert len(rows) > 100 and [key for key, meaning in rows if not meaning] == []


def test_comments_are_read_with_those_inherited(tmp_path, monkeypatch):
    monkeypatch.setattr(keys, "FOLDER", tmp_path)
    (tmp_path / "shared.yaml").write_text("a: 1  # of the shared\nb: 'x # y'  # quoted\n")
    (tmp_path / "group").mkdir()
    (tmp_path / "group" / "v1.5.yaml").write_text(
        "defaults: [/shared@_here_, /schema/k@_here_]\nc:   # inner\n  d: [1, 2]  # list\n"
    )
    (tmp_path / "group" / "child.yaml").write_text(
        "defaults:\n  - v1.5\n  - _self_\n\n# above\na: 2\ne: |\n  text\nf: 3\n"
    )
    assert keys.yaml_comments(tmp_path / "group" / "child.yaml") == {
        "a": "above", "b": "quoted", "c": "inner", "c.d": "list",
    }  # fmt: skip


def test_citation_is_the_papers():
    cited = yaml.safe_load((PROJECT / "CITATION.cff").read_text(encoding="utf-8"))
    paper, readme = cited["preferred-citation"], (PROJECT / "README.md").read_text(encoding="utf-8")
    assert f"{{{paper['title']}}}" in readme
    assert " and ".join(f"{a['family-names']}, {a['given-names']}" for a in paper["authors"]) in readme
    assert paper["identifiers"][0]["value"] == "arXiv:2605.11836" and "arXiv:2605.11836" in readme
    version = re.search(r'^version = "(.*)"', (PROJECT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version and cited["version"] == version[1]
    assert f"## [{version[1]}]" in (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")


# commands


@pytest.fixture(scope="module", autouse=True)
def presets():
    """Our launchers' presets in the place of those that the plugins register."""
    register()
    prefer_our_presets()


def test_the_readme_has_commands_to_paste():
    assert len([line for line in commands(PROJECT / "README.md") if line.startswith(("python", "sh "))]) >= 12


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "RESULTS.md"], ids=lambda path: path.name)
def test_commands_are_good(page):
    """RESULTS.md is left out: it says what was run when it was written, options that left among it."""
    for line in commands(page):
        words = shlex.split(line)
        if words[:2] == ["sh", "run.sh"]:
            check_run_sh(words[2:])
        elif words[:2] == ["python", "main.py"]:
            check_main(words[2:])
        elif words[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(words[2]), line


def check_run_sh(words: list[str]) -> None:
    """An experiment's name with overrides that compose, or one of run.sh's own words."""
    name, *more = words or ["list"]
    if (PROJECT / "config" / "experiment" / f"{name}.yaml").is_file():
        check_main([f"experiment={name}", *more])
    else:
        assert f"sh run.sh {name}" in (PROJECT / "run.sh").read_text() or name == "claims_short", name


def check_main(words: list[str]) -> None:
    """Overrides that compose, of a sweep the first of each list; what a folder outside the project adds is left out."""
    if words == ["--help"] or words[0].startswith("resume="):
        return
    if words[0] == "--config-dir":
        words = [word for word in words[2:] if not word.startswith(("editor", "dataset"))]
    words = [re.sub(r"=([^[,]+),.*", r"=\1", word) for word in words if word != "-m"]
    check_override_names(words)
    compose_config([word for word in words if not word.startswith("hydra")])


def test_a_command_composes_in_the_real_program(tmp_path):
    done = run_main("experiment=zsre_mistral-7b", "--cfg", "job", cwd=tmp_path)
    assert done.returncode == 0 and yaml.safe_load(done.stdout)["num_seq"] == 200, done.stderr


# CONTRIBUTING's examples


def titled(start: str) -> dict[str, str]:
    """The guide's blocks by file name, of those whose name begins with `start`."""
    found = {}
    for language in ("python", "yaml", "json"):
        for more, body in blocks(GUIDE, language):
            name = more.removeprefix("title=").split()[0]
            if name.startswith(start):
                found[name] = body
    return found


def write_mine(folder: Path) -> None:
    """The files of the guide's own folder, as they stand there."""
    for name, body in titled("mine/").items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(body)


def tiny_model() -> list[str]:
    """Overrides that put a tiny model in the place of the embedded one, and leave out what takes time."""
    sites = ",".join(SITES["tiny-llama"])
    words = [f"model.name_or_path={MODELS / 'tiny-llama'}", f"model.edit_modules=[{sites}]", "model_device=cpu"]
    return [*words, "wandb.mode=disabled", "report=false", "eval.cache_dir=null", "hydra.run.dir=run"]


def test_the_editor_and_the_data_set_run_from_outside_the_project(tmp_path):
    write_mine(tmp_path)
    (command,) = [line for line in commands(PROJECT / "CONTRIBUTING.md") if "editor=sign dataset=songs" in line]
    done = run_main(*shlex.split(command)[2:], *tiny_model(), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["counts"]["edits"] == 4 and {"ES", "GS", "LS"} <= results.keys()
    editor = results["config"]["editor"]
    assert (editor["name"], editor["strength"], editor["lr"]) == ("sign", 1.0, 1e-3)
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    norms = [site["shift_norm"] for step in steps if step["event"] == "step" for site in step["sites"].values()]
    assert len(norms) == 2 * len(SITES["tiny-llama"]) and min(norms) > 0


@pytest.mark.parametrize(
    ("word", "says"),
    [("editor.strenght=2", "editor.strength"), ("editor.strength=-1", "above 0"), ("editor.alpha=1", "alpha")],
)
def test_a_bad_key_of_the_editor_is_refused(tmp_path, word, says):
    write_mine(tmp_path)
    words = ["--config-dir", "mine", "editor=sign", "dataset=songs", "model=smollm2-135m", "num_seq=2", word]
    done = run_main(*words, *tiny_model(), cwd=tmp_path)
    assert done.returncode == 1 and says in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "run" / "results.json").exists()


def patched_project(folder: Path) -> None:
    """A copy of the project with the guide's rows below the lines that they name."""
    for path in PROJECT.iterdir():
        if path.suffix == ".py":
            shutil.copy(path, folder)
        elif (path / "__init__.py").is_file() and path.name != "tests":
            shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("__pycache__", "raw"))
    for more, body in [*blocks(GUIDE, "python"), *blocks(GUIDE, "yaml")]:
        match = re.fullmatch(r'title=(\S+) after="(.*)"', more)
        if match:
            file = folder / match[1]
            lines = file.read_text().splitlines(keepends=True)
            (at,) = [number for number, line in enumerate(lines) if line.startswith(match[2])]
            file.write_text("".join([*lines[: at + 1], body, *lines[at + 1 :]]))


def test_the_metric_and_the_task_are_measured(tmp_path):
    patched_project(tmp_path)
    write_mine(tmp_path)
    rows = (tmp_path / "mine" / "colours.jsonl").read_text()
    (tmp_path / "mine" / "colours.jsonl").write_text(rows * 52)  # 100 rows are kept for shots
    words = ["downstream_eval_steps=3", "downstream.tasks=[colours]", "downstream.data_dir=mine"]
    words = tiny_words(*words, "downstream.number_of_tests=4", "hydra.run.dir=run")
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "main.py", *words],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = {
        entry["metric"]: entry for entry in json.loads((tmp_path / "run" / "results.json").read_text())["metrics"]
    }
    assert metrics["LS_first"]["n"] == 24 and 0 <= metrics["LS_first"]["value"] <= 1
    assert metrics["LS_first"]["protocol"] == "first answer token as before editing, teacher-forced"
    assert "LS_first" in done.stdout
    base = json.loads((tmp_path / "run" / "glue_eval" / "base_glue.json").read_text())
    assert (base["colours"]["total"], base["colours"]["correct_new"] + base["colours"]["incorrect_new"]) == (4, 4)
