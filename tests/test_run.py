"""The whole run on tiny models: what it records, that it repeats, and what must not change its numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from config.choices import PreheatMode
from config.compose import compose_config
from editor import cache
from editor.base import Editor
from editor.sites import find_sites
from editor.stableedit import StableEdit
from lifelong import run as lifelong_run
from lifelong.session import Session
from lifelong.setup import Data, schedule, warm_up_steps
from tests.tiny import SITES, run_main, tiny_edits, tiny_words

METRICS = ("ES", "GS", "LS")
WEIGHTS = "model.safetensors"


def go(run_dir: Path, *words: str, **base: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One run; its results and the lines of metrics.jsonl."""
    results = lifelong_run.run(compose_config(tiny_words(*words, **base)), run_dir)
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return results, lines


def saved(folder: Path) -> tuple[str, str]:
    """The words that save the edited model."""
    return "model_cache=true", f"model_cache_dir={folder}"


def without_seconds(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """The folder of a plain run that saved its model."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("plain")
    go(folder / "run", *saved(folder / "saved"))
    return folder


def read(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Results and metric lines of a finished run, from its files."""
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    return json.loads((folder / "run" / "results.json").read_text()), [json.loads(line) for line in lines]


def test_results(plain):
    results, _ = read(plain)
    for name in METRICS:
        assert 0 <= results[name] <= 1 and 0 <= results["pre"][name] <= 1
    assert results["ES"] > results["pre"]["ES"] + 0.1, "it edits"
    counts = {"edits": 24, "steps": 5, "warm_up_steps": 2, "skipped_rows": 0}
    assert results["counts"] == counts | {"tokens": results["counts"]["tokens"]}
    assert all(seconds >= 0 for seconds in results["seconds"].values())
    assert {"check", "load", "evaluate before", "evaluate after", "step: capture"} <= results["seconds"].keys()
    assert results["peak_memory"]["resident_mib"] > 50
    assert {"python", "torch", "transformers", "hydra-core"} <= results["versions"].keys()
    assert results["config"]["editor"]["preheat_mode"] == "start" and results["config"]["num_seq"] == 3


def test_metric_lines(plain):
    results, lines = read(plain)
    assert [line["event"] for line in lines] == ["evaluate", *["step"] * 5, "evaluate"]
    assert {name: lines[0][name] for name in METRICS} == {name: results["pre"][name] for name in METRICS}
    assert {name: lines[-1][name] for name in METRICS} == {name: results[name] for name in METRICS}
    steps = lines[1:-1]
    assert [(line["index"], line["phase"], line["edits"]) for line in steps] == [
        (0, "warm-up", 0), (1, "warm-up", 0), (2, "edit", 8), (3, "edit", 16), (4, "edit", 24)
    ]  # fmt: skip
    assert sum(line["tokens"] for line in steps) == results["counts"]["tokens"]
    for index, line in enumerate(steps):
        assert line["loss"] > 0 and {"capture", "statistics", "whitening", "ridge", "write"} <= line["seconds"].keys()
        assert list(line["sites"]) == SITES["tiny-llama"]
        for site in line["sites"].values():
            assert site["shift_norm"] > 0 and site["lost_share"] < 0.01
            assert (site["cosine"] is None) if index == 0 else (abs(site["cosine"]) <= 1)
        (statistics,) = line["statistics"].values()
        assert statistics["rows"] == 3 * sum(earlier["tokens"] for earlier in steps[: index + 1])
        assert statistics["key_std"] > 0 and statistics["gradient_std"] > 0


def test_two_runs_are_bitwise_the_same(plain, tmp_path):
    results, lines = go(tmp_path / "run", *saved(tmp_path / "saved"))
    before, before_lines = read(plain)
    assert without_seconds(lines) == without_seconds(before_lines)
    for key in (*METRICS, "pre", "counts"):
        assert results[key] == before[key], key
    weights, again = load_file(plain / "saved" / WEIGHTS), load_file(tmp_path / "saved" / WEIGHTS)
    assert weights.keys() == again.keys()
    assert all(torch.equal(value, again[key]) for key, value in weights.items())


def test_only_the_sites_change(plain, tmp_path):
    weights = load_file(plain / "saved" / WEIGHTS)
    original = load_file(Path(read(plain)[0]["config"]["model"]["name_or_path"]) / WEIGHTS)
    changed = {key for key, value in weights.items() if not torch.equal(value, original[key])}
    assert changed == {f"{site}.weight" for site in SITES["tiny-llama"]}


def test_saved_model_scores_the_same(plain):
    results, _ = read(plain)
    model = AutoModelForCausalLM.from_pretrained(plain / "saved").eval()
    tokenizer = AutoTokenizer.from_pretrained(plain / "saved")
    cfg = compose_config(tiny_words())
    editor = StableEdit(cfg.editor, model, find_sites(model, cfg.model.edit_modules))
    found = Session(cfg, model, tokenizer, editor).score(tiny_edits(count=24))
    assert {name: found[name] for name in METRICS} == {name: results[name] for name in METRICS}
    assert {path.name for path in plain.iterdir()} == {"run", "saved"}, "no scratch folder stays"


def test_a_saved_model_may_be_replaced(plain, tmp_path):
    for steps in (1, 2):
        results, _ = go(tmp_path / f"run{steps}", f"num_seq={steps}", *saved(tmp_path / "saved"))
        assert Path(results["model_cache_dir"]) == tmp_path / "saved"
    go(tmp_path / "run", "num_seq=2", *saved(tmp_path / "other"))
    one, other = load_file(tmp_path / "saved" / WEIGHTS), load_file(tmp_path / "other" / WEIGHTS)
    assert all(torch.equal(value, other[key]) for key, value in one.items())


@pytest.mark.parametrize("in_memory", [0, 3000, cache.IN_MEMORY])
def test_where_rows_wait_changes_nothing(plain, tmp_path, monkeypatch, in_memory):
    """editor.cache_dir=null against files, all of the rows in them or some; the folder is empty in the end."""
    monkeypatch.setattr(cache, "IN_MEMORY", in_memory)
    _, lines = go(tmp_path / "run", f"editor.cache_dir={tmp_path}/cache")
    assert without_seconds(lines) == without_seconds(read(plain)[1])
    assert list((tmp_path / "cache").iterdir()) == []


def test_cache_folder_is_empty_after_a_failure(tmp_path, monkeypatch):
    def fail(*_, **__):
        assert list((tmp_path / "cache").rglob("*.safetensors")), "rows are in files by now"
        raise RuntimeError("stop")

    monkeypatch.setattr(cache, "IN_MEMORY", 0)
    monkeypatch.setattr(StableEdit, "shifts", fail)
    with pytest.raises(RuntimeError, match="stop"):
        go(tmp_path / "run", f"editor.cache_dir={tmp_path}/cache")
    assert list((tmp_path / "cache").iterdir()) == []
    assert not (tmp_path / "run" / "results.json").exists()


@pytest.mark.parametrize("size", [1, 7, 512])
@pytest.mark.parametrize("editor", ["stableedit", "malmen", "mend"])
def test_editor_batch_size_only_bounds(tmp_path, editor, size):
    learned = (
        [] if editor == "stableedit" else ["editor.rank=8", "editor.n_blocks=2", "num_seq=2", "editor.meta_lr=1e-3"]
    )
    results, lines = go(tmp_path / "one", "editor.batch_size=64", *learned, editor=editor)
    again, again_lines = go(tmp_path / "two", f"editor.batch_size={size}", *learned, editor=editor)
    near = 1e-5 if editor == "stableedit" else 1e-3
    assert {name: again[name] for name in METRICS} == {name: results[name] for name in METRICS}
    for line, other in zip(lines, again_lines, strict=True):
        for site, record in line.get("sites", {}).items():
            assert other["sites"][site]["shift_norm"] == pytest.approx(record["shift_norm"], rel=near)


@pytest.mark.parametrize("key", ["eval.tokens_per_batch=31", "eval.before=false"])
def test_how_it_is_scored_does_not_change_what_is_written(plain, tmp_path, key):
    results, lines = go(tmp_path / "run", key)
    steps = [line for line in without_seconds(read(plain)[1]) if line["event"] == "step"]
    assert [line for line in without_seconds(lines) if line["event"] == "step"] == steps
    assert {name: results[name] for name in METRICS} == {name: read(plain)[0][name] for name in METRICS}
    assert (results["pre"] is None) == ("before" in key)


POSITIONS = {"start": 0, "q1": 2, "middle": 4, "q3": 6, "end": 7, "none": None}


def scheduled(mode: str, num_seq: int = 8, *words: str, dataset: str = "zsre") -> list[tuple[bool, list[int]]]:
    """The schedule of a run of two edits a step: warm-up or not, and the rows of each step."""
    words = (f"num_seq={num_seq}", "dataset.n_edits=2", f"editor.preheat_mode={mode}", *words)
    cfg = compose_config(tiny_words(*words, dataset=dataset))
    edits, training = tiny_edits(count=2 * num_seq), tiny_edits("fever", 2 * warm_up_steps(cfg))
    data = Data(edits, training or None)
    assert all(edit in (training if warm_up else edits) for warm_up, step in schedule(cfg, data) for edit in step)
    return [(warm_up, [edit.row for edit in step]) for warm_up, step in schedule(cfg, data)]


@pytest.mark.parametrize("mode", [mode.value for mode in PreheatMode])
def test_warm_up_stands_where_it_is_asked_for(mode):
    expected = [(False, [2 * i, 2 * i + 1]) for i in range(8)]
    if POSITIONS[mode] is not None:
        expected[POSITIONS[mode] : POSITIONS[mode]] = [(True, [0, 1]), (True, [2, 3])]
    assert scheduled(mode) == expected


@pytest.mark.parametrize(("num_seq", "positions"), [(1, (0, 0, 0, 0, 0)), (5, (0, 1, 2, 3, 4)), (3, (0, 0, 1, 2, 2))])
def test_warm_up_rounds_down(num_seq, positions):
    for mode, position in zip(("start", "q1", "middle", "q3", "end"), positions, strict=True):
        warm_up = [warm for warm, _ in scheduled(mode, num_seq)]
        assert warm_up == [False] * position + [True] * 2 + [False] * (num_seq - position)


def test_length_of_the_warm_up():
    """num_seq_wikibigedit counts for wikibigedit, num_seq_zsre for every other data set."""
    words = ("num_seq_zsre=1", "num_seq_wikibigedit=3")
    for dataset, count in (("zsre", 1), ("fever", 1), ("ultraeditbench", 1), ("wikibigedit", 3)):
        assert sum(warm for warm, _ in scheduled("start", 2, *words, dataset=dataset)) == count
    assert not any(warm for warm, _ in scheduled("start", 2, "num_seq_zsre=0"))


@pytest.mark.parametrize("mode", ["start", "middle", "end", "none"])
def test_warm_up_runs_where_it_is_scheduled(tmp_path, mode):
    results, lines = go(tmp_path / "run", f"editor.preheat_mode={mode}", "num_seq=4")
    phases = ["edit"] * 4
    if mode != "none":
        position = {"start": 0, "middle": 2, "end": 3}[mode]
        phases[position:position] = ["warm-up"] * 2
    assert [line["phase"] for line in lines if line["event"] == "step"] == phases
    assert results["counts"]["warm_up_steps"] == phases.count("warm-up")


def test_several_shapes_have_statistics_of_their_own(tmp_path):
    sites = ["model.layers.1.mlp.gate_proj", "model.layers.2.mlp.down_proj", "model.layers.3.self_attn.o_proj"]
    results, lines = go(tmp_path / "run", f"model.edit_modules=[{','.join(sites)}]")
    last = lines[-2]
    assert set(last["statistics"]) == {"(48, 112)", "(112, 48)", "(48, 48)"}
    assert {record["rows"] for record in last["statistics"].values()} == {results["counts"]["tokens"]}
    assert list(last["sites"]) == sites and all(site["shift_norm"] > 0 for site in last["sites"].values())


@pytest.mark.parametrize(("model", "dataset"), [("tiny-gptj", "fever"), ("tiny-gpt2", "wikibigedit")])
def test_other_models_and_data(tmp_path, model, dataset):
    results, _ = go(tmp_path / "run", model=model, dataset=dataset)
    names = [*METRICS, "person_score", "mhop_score"] if dataset == "wikibigedit" else list(METRICS)
    assert list(results["pre"]) == names and all(math.isfinite(results[name]) for name in names)


def test_bfloat16_loses_updates_and_says_so(plain, tmp_path):
    _, lines = go(tmp_path / "bf16", "model.precision=bfloat16", *saved(tmp_path / "saved"))
    shares = [site["lost_share"] for line in lines if line["event"] == "step" for site in line["sites"].values()]
    assert all(0 < share < 1 for share in shares)
    assert all(value.dtype == torch.bfloat16 for value in load_file(tmp_path / "saved" / WEIGHTS).values())
    floats = [
        site["lost_share"] for line in read(plain)[1] if line["event"] == "step" for site in line["sites"].values()
    ]
    assert min(shares) > max(floats)


def test_float32_masters_change_bfloat16_alone(plain, tmp_path):
    _, lines = go(tmp_path / "float32", "editor.float32_masters=true")
    assert without_seconds(lines) == without_seconds(read(plain)[1])
    for masters in ("true", "false"):
        words = ("model.precision=bfloat16", f"editor.float32_masters={masters}")
        go(tmp_path / masters, *words, *saved(tmp_path / f"saved-{masters}"))
    with_masters, without = (load_file(tmp_path / f"saved-{name}" / WEIGHTS) for name in ("true", "false"))
    assert any(not torch.equal(value, without[key]) for key, value in with_masters.items())


def test_a_failed_run_leaves_no_results(tmp_path, monkeypatch):
    calls = []

    def fail_late(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("stop")
        return step(self, *args, **kwargs)

    step = Editor.step
    monkeypatch.setattr(Editor, "step", fail_late)
    with pytest.raises(RuntimeError, match="stop"):
        go(tmp_path / "run", *saved(tmp_path / "saved"))
    assert not (tmp_path / "run" / "results.json").exists() and not (tmp_path / "saved").exists()
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3, "what was done is recorded"


@pytest.mark.slow
def test_wandb_stays_offline_in_the_run_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    go(tmp_path / "run", "wandb.mode=offline", "num_seq=1", "num_seq_zsre=1")
    (folder,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    assert list(folder.glob("run-*.wandb"))
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


@pytest.mark.slow
def test_a_sweep_makes_runs_that_share_nothing(tmp_path):
    words = tiny_words("editor.alpha=1,10", "editor.preheat_mode=start,none", "num_seq=2", "editor.cache_dir=cache")
    words = [word for word in words if word != "editor.alpha=10"]
    done = run_main("-m", *words, "hydra.sweep.dir=sweep", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    runs = sorted(path.parent for path in (tmp_path / "sweep").rglob("results.json"))
    assert len(runs) == 4
    seen = []
    for run in runs:
        results = json.loads((run / "results.json").read_text())
        editor = results["config"]["editor"]
        seen.append((editor["alpha"], editor["preheat_mode"]))
        assert yaml.safe_load((run / ".hydra" / "config.yaml").read_text())["editor"]["alpha"] == editor["alpha"]
        steps = 2 if editor["preheat_mode"] == "none" else 4
        assert len((run / "metrics.jsonl").read_text().splitlines()) == steps + 2
    assert sorted(seen) == [(1.0, "none"), (1.0, "start"), (10.0, "none"), (10.0, "start")]
    outside = [p for p in tmp_path.rglob("*") if p.is_file() and not any(run in p.parents for run in runs)]
    assert {path.name for path in outside} == {"multirun.yaml", ".lock"}, "no file is shared"
    assert done.stdout.count("metric ") == 4, "a table for each"


@pytest.mark.gpu
@pytest.mark.parametrize("solve", ["cpu", "cuda:0"])
def test_gpu_gives_what_the_cpu_gives(plain, tmp_path, solve):
    words = ["model_device=cuda:0", f"editor_device={solve}"]
    results, lines = go(tmp_path / "run", *words, f"editor.cache_dir={tmp_path}/cache")
    before, before_lines = read(plain)
    for name in METRICS:
        assert results[name] == pytest.approx(before[name], abs=0.03)
    for line, expected in zip(lines, before_lines, strict=True):
        for site, record in expected.get("sites", {}).items():
            assert line["sites"][site]["shift_norm"] == pytest.approx(record["shift_norm"], rel=1e-2)


def test_device_map_gives_the_same_run(tmp_path):
    plain, spread = go(tmp_path / "plain")[0], go(tmp_path / "spread", "model.device_map=auto")[0]
    assert {name: plain[name] for name in METRICS} == {name: spread[name] for name in METRICS}
