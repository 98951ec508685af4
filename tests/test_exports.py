"""exports/ and lifelong/inspect.py: cards, changed weights alone, asking saved models, listing what can be edited."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.pytorch_utils import Conv1D

from config.check import ConfigError
from config.compose import compose_config
from config.editors import RidgeConfig
from config.schema import Config, DatasetConfig, Export, ModelConfig, Precision, PromptFormat
from config.sites import expand_sites
from editor.sites import check_sites, find_sites
from exports.__main__ import main
from exports.ask import Question, ask
from exports.card import base_license, front_matter, model_card
from exports.delta import apply_delta, base_identity, read_delta, read_weights
from exports.folders import check_save_folder
from exports.save import check_export, save_edited
from files import whole_folder
from lifelong.inspect import inspect_model
from model import load_model, load_tokenizer, model_skeleton
from tests.tiny import MODELS, PROJECT, SITES, load_tiny

NAMES = ("tiny-llama", "tiny-gptj", "tiny-gpt2")
PROMPT = "What is the capital of France?"


def config(name: str = "tiny-llama", base: Path | None = None, **more) -> Config:
    """A run on a tiny model; its keys from the schema's defaults."""
    return Config(
        dataset=DatasetConfig(name="zsre", train_path="train.json", valid_path="eval.json"),
        model=ModelConfig(name=name, name_or_path=str(base or MODELS / name), edit_modules=SITES[name]),
        editor=RidgeConfig(name="stableedit", alpha=10.0, lr=3e-3),
        **more,
    )


def results_of(cfg: Config) -> dict:
    """What a run knows when it saves: the form of results.json."""
    return {
        "metrics": [
            {"metric": "ES", "before": 0.25, "value": 0.75, "low": 0.7, "high": 0.8, "n": 1200, "protocol": "tokens"},
            {"metric": "LS_agreement", "value": 0.5, "low": None, "high": None, "n": 90, "protocol": "a | b"},
        ],
        "counts": {"edits": 1200, "steps": 220, "warm_up_steps": 20},
        "versions": {"python": "3.12.1", "torch": "2.13.0"},
        "config": OmegaConf.to_container(OmegaConf.structured(cfg), enum_to_str=True),
        "command": ["python", "main.py", "editor.alpha=10", "model.edit_modules=[a,b]"],
    }


def edited(cfg: Config) -> tuple[dict, nn.Module]:
    """The identity of the base, and the model with every site changed."""
    model = load_model(cfg.model, torch.device("cpu"))
    identity = base_identity(model, cfg.model.edit_modules)
    for index, site in enumerate(find_sites(model, cfg.model.edit_modules)):
        noise = torch.randn(site.weight.shape, generator=torch.Generator().manual_seed(index))
        site.weight.add_(0.5 * noise.to(site.weight.dtype))
    return identity, model


def save(cfg: Config, folder: Path, export: Export = Export.full) -> Path:
    """Edit a model and save it."""
    cfg = dataclasses.replace(cfg, model_cache=True, model_cache_dir=str(folder), export=export)
    identity, model = edited(cfg)
    return save_edited(cfg, model, load_tokenizer(cfg.model), identity, results_of(cfg))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def run_model(*words: str, cwd: Path, python: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """`python -m exports WORDS`."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, *python, "-m", "exports", *words]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def call(monkeypatch, capsys):
    """The same command inside this process, as (exit status, stdout, stderr); torch need not be loaded again."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["exports", *words])
        status: str | int | None = 0
        try:
            main()
        except SystemExit as stop:
            status = stop.code
        printed = capsys.readouterr()
        if isinstance(status, str):  # what the interpreter prints when sys.exit gets a text
            return 1, printed.out, printed.err + status + "\n"
        return status or 0, printed.out, printed.err

    return run


def greedy(model: nn.Module, tokenizer, tokens: int, prompt: str = PROMPT) -> str:
    """What transformers itself answers."""
    given = tokenizer(prompt, return_tensors="pt")
    found = model.generate(**given, do_sample=False, max_new_tokens=tokens, pad_token_id=0)
    return tokenizer.decode(found[0, given["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def answers_in(printed: str) -> dict[str, str]:
    """The answers of a single-prompt print by label, continuation lines joined as they were."""
    block = printed.split("\n\n", 1)[1].rstrip("\n")
    found = re.findall(r"^(prompt|base|edited) +(.*(?:\n {8}.*)*)$", block, flags=re.MULTILINE)
    return {label: re.sub(r"\n {8}", "\n", text) for label, text in found}


# cards


def test_card_has_valid_front_matter_and_says_what_was_done():
    cfg = config()
    identity, _ = edited(cfg)
    card = model_card(results_of(cfg), identity)
    _, head, body = card.split("---\n", 2)
    base = str(MODELS / "tiny-llama")
    assert yaml.safe_load(head) == {
        "base_model": base,
        "edited_from": base,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["model-editing", "knowledge-editing", "stableedit"],
    }
    for line in (
        "| ES | 0.2500 | 0.7500 | +0.5000 | 0.700-0.800 | 1200 | tokens |",
        "| LS_agreement | - | 0.5000 | - | - | 90 | a \\| b |",
        "| `editor.alpha` | `10.0` |",
        "| `dataset.valid_path` | `eval.json` |",
        "python main.py editor.alpha=10 'model.edit_modules=[a,b]'",
        "| torch | 2.13.0 |",
    ):
        assert line in body.splitlines()
    assert "1,200 edits of the data set zsre" in body and "of 20 warm-up steps stay" in body
    assert "states its edited facts as true" in body
    assert "editor.rank" not in body, "null settings are left out"
    with safe_open(MODELS / "tiny-llama" / "model.safetensors", "numpy") as file:
        for site in SITES["tiny-llama"]:
            digest = hashlib.sha256(file.get_tensor(f"{site}.weight").tobytes()).hexdigest()
            assert f"| `{site}.weight` | `{digest}` |" in body.splitlines()


def test_card_without_what_is_not_known():
    cfg = config()
    results = results_of(cfg) | {"command": None, "counts": {"edits": 3, "steps": 1, "warm_up_steps": 0}}
    card = model_card(results, edited(cfg)[0])
    assert "```sh" not in card and "warm-up" not in card


def test_what_a_card_quotes_is_no_markup():
    cfg = config()
    cfg.model.name = cfg.dataset.name = "<script>alert(1)</script>"
    cfg.dataset.valid_path = "a`<script>|\n\n<script>.json"
    body = model_card(results_of(cfg), edited(cfg)[0]).split("---\n", 2)[2]
    assert "# &lt;script&gt;alert(1)&lt;/script&gt; edited by stableedit" in body.splitlines()
    assert "edits of the data set &lt;script&gt;alert" in body
    outside = re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```$", "", body, flags=re.MULTILINE | re.DOTALL))
    assert "<script>" not in outside
    assert r"| `dataset.valid_path` | `a'<script>\|  <script>.json` |" in body.splitlines()


def test_license_comes_from_the_base_only(tmp_path):
    base = tmp_path / "base"
    shutil.copytree(MODELS / "tiny-llama", base)
    assert base_license(str(base)) == {}
    (base / "README.md").write_text("---\nlicense: other\nlicense_name: house\ntags: [a]\n---\ntext\n")
    cfg = config(base=base)
    found = yaml.safe_load(model_card(results_of(cfg), edited(cfg)[0]).split("---\n")[1])
    assert (found["license"], found["license_name"]) == ("other", "house")
    (base / "README.md").write_text("---\n[broken\n---\n")
    assert base_license(str(base)) == {}
    assert base_license("nobody/never-fetched") == {}


def test_card_of_the_embedded_model_names_its_hub_id_and_license():
    cfg = config()
    cfg.model.name_or_path = "embedded:smollm2-135m"
    identity = {"architecture": "A", "config_sha256": "0", "dtype": "float32", "tensors": {"w": "1"}}
    found = yaml.safe_load(model_card(results_of(cfg), identity).split("---\n")[1])
    assert found["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct" and found["license"] == "apache-2.0"
    assert found["edited_from"] == "embedded:smollm2-135m"


def test_full_save_opens_with_transformers_and_carries_its_card(tmp_path):
    folder = save(config(), tmp_path / "full")
    opened = AutoModelForCausalLM.from_pretrained(folder)
    _, model = edited(config())
    for name, weight in model.state_dict().items():
        assert torch.equal(opened.state_dict()[name], weight), name
    assert front_matter(folder)["edited_from"] == str(MODELS / "tiny-llama")


# changed weights alone


@pytest.mark.parametrize("precision", [Precision.float32, Precision.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_delta_put_into_its_base_is_bitwise_the_full_save(name, precision, tmp_path):
    cfg = config(name)
    cfg.model.precision = precision
    full = save(cfg, tmp_path / "full")
    delta = save(cfg, tmp_path / "delta", Export.delta)
    assert sorted(contents(delta)) == ["README.md", "delta.json", "delta.safetensors"]
    with safe_open(delta / "delta.safetensors", "pt") as file:
        assert set(file.keys()) == {f"{site}.weight" for site in SITES[name]}
        assert {file.get_tensor(key).dtype for key in file.keys()} == {getattr(torch, precision.value)}  # noqa: SIM118
    whole = apply_delta(str(MODELS / name), delta, tmp_path / "whole")
    assert contents(whole) == contents(full)
    assert contents(whole)["model.safetensors"] != (MODELS / name / "model.safetensors").read_bytes()


def test_delta_says_how_to_apply_it(tmp_path):
    delta = save(config(), tmp_path / "delta", Export.delta)
    assert f"python -m exports apply-delta {MODELS}/tiny-llama THIS_FOLDER" in (delta / "README.md").read_text()
    assert read_delta(delta).base == str(MODELS / "tiny-llama")
    with pytest.raises(ConfigError, match="changed weights only.*apply-delta"):
        load_tokenizer(ModelConfig(name_or_path=str(delta)))


def changed_base(folder: Path, site: str) -> Path:
    """A copy of tiny-llama with one number of one weight changed by the least possible."""
    model = load_tiny("tiny-llama")
    with torch.no_grad():
        weight = model.get_submodule(site).weight
        weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(9.0))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(MODELS / "tiny-llama").save_pretrained(folder)
    return folder


def test_apply_delta_refuses_another_base_and_names_the_tensor(tmp_path):
    delta, out = save(config(), tmp_path / "delta", Export.delta), tmp_path / "out"
    for site in SITES["tiny-llama"]:
        base = changed_base(tmp_path / site, site)
        with pytest.raises(ConfigError, match=rf"{re.escape(site)}\.weight differs"):
            apply_delta(str(base), delta, out)
    with pytest.raises(ConfigError, match="is a GPTJForCausalLM, not a LlamaForCausalLM"):
        apply_delta(str(MODELS / "tiny-gptj"), delta, out)
    narrow = tmp_path / "narrow"
    shutil.copytree(MODELS / "tiny-llama", narrow)
    settings = json.loads((narrow / "config.json").read_text()) | {"intermediate_size": 64}
    AutoModelForCausalLM.from_config(type(load_tiny("tiny-llama").config)(**settings)).save_pretrained(narrow)
    with pytest.raises(ConfigError, match=r"down_proj\.weight is \[48, 64\], not \[48, 112\]"):
        apply_delta(str(narrow), delta, out)
    with pytest.raises(ConfigError, match="no such folder"):
        apply_delta(str(tmp_path / "nowhere"), delta, out)
    assert not out.exists()


def test_apply_delta_takes_a_base_that_differs_elsewhere_and_says_nothing_of_weights(tmp_path):
    """Only the replaced weights are compared, as documented: reading the others would cost a pass over the model."""
    delta = save(config(), tmp_path / "delta", Export.delta)
    base = changed_base(tmp_path / "base", "model.layers.0.mlp.down_proj")
    assert (apply_delta(str(base), delta, tmp_path / "out") / "config.json").is_file()


def test_damaged_and_foreign_deltas_are_refused(tmp_path):
    delta = save(config(), tmp_path / "delta", Export.delta)
    base = str(MODELS / "tiny-llama")
    weights = (delta / "delta.safetensors").read_bytes()
    (delta / "delta.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(ConfigError, match=r"layers\.\d\.mlp\.down_proj\.weight is not what delta.json says"):
        apply_delta(base, delta, tmp_path / "out")
    (delta / "delta.safetensors").write_bytes(weights[:100])
    with pytest.raises(ConfigError, match="delta.safetensors: cannot be read"):
        apply_delta(base, delta, tmp_path / "out")
    said = json.loads((delta / "delta.json").read_text())
    for wrong, message in (
        (said | {"version": 2}, "is stableedit-delta 2 in float32"),
        (said | {"dtype": "int8"}, "in int8"),
        ([], "cannot be read"),
        (said | {"tensors": {}}, "names no tensor that was changed"),
        ({k: v for k, v in said.items() if k != "tensors"}, "cannot be read.*tensors"),
    ):
        (delta / "delta.json").write_text(json.dumps(wrong))
        with pytest.raises(ConfigError, match=message):
            read_delta(delta)
    with pytest.raises(ConfigError, match="holds no delta.json"):
        read_delta(base)


@pytest.mark.parametrize("wrong", [{"shape": [1, 2]}, {"dtype": "float16"}])
def test_a_delta_holds_what_it_declares_and_nothing_else(wrong, tmp_path):
    delta = save(config(), tmp_path / "delta", Export.delta)
    weights, said = load_file(delta / "delta.safetensors"), json.loads((delta / "delta.json").read_text())
    save_file(weights | {"lm_head.weight": torch.zeros(2)}, delta / "delta.safetensors")
    with pytest.raises(ConfigError, match=r"holds lm_head\.weight, which delta\.json does not name"):
        read_weights(read_delta(delta))
    save_file(weights, delta / "delta.safetensors")
    name = next(iter(weights))
    said["tensors"][name] |= wrong
    (delta / "delta.json").write_text(json.dumps(said))
    with pytest.raises(ConfigError, match="is not what delta.json says"):
        read_weights(read_delta(delta))


@pytest.fixture(scope="module")
def whole_delta(tmp_path_factory) -> Path:
    """A delta to copy and damage."""
    return save(config(), tmp_path_factory.mktemp("delta") / "delta", Export.delta)


NAME = "model.layers.1.mlp.down_proj.weight"


def described(**more) -> Callable[[Path], None]:
    """Change delta.json."""
    return rewritten(lambda said: said | more)


def tensor(**more) -> Callable[[Path], None]:
    """Change what delta.json says of one tensor; None takes a key away."""

    def change(said: dict) -> dict:
        kept = {key: value for key, value in (said["tensors"][NAME] | more).items() if value is not None}
        return said | {"tensors": said["tensors"] | {NAME: kept}}

    return rewritten(change)


def rewritten(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def write(delta: Path) -> None:
        path = delta / "delta.json"
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return write


def renamed(name: str) -> Callable[[Path], None]:
    """Give one tensor another name, in both files."""

    def change(delta: Path) -> None:
        weights = load_file(delta / "delta.safetensors")
        save_file({name if key == NAME else key: value for key, value in weights.items()}, delta / "delta.safetensors")
        rewritten(lambda said: said | {"tensors": {name if k == NAME else k: v for k, v in said["tensors"].items()}})(
            delta
        )

    return change


MALFORMED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (lambda delta: (delta / "delta.safetensors").unlink(), "delta.safetensors: cannot be read"),
    "weights of garbage": (lambda delta: (delta / "delta.safetensors").write_bytes(b"x" * 99), "cannot be read"),
    "empty weights": (lambda delta: (delta / "delta.safetensors").write_bytes(b""), "cannot be read"),
    "no description": (lambda delta: (delta / "delta.json").unlink(), "holds no delta.json"),
    "garbage": (lambda delta: (delta / "delta.json").write_bytes(b"\xff\xfe{"), "delta.json: cannot be read"),
    "without end": (lambda delta: (delta / "delta.json").write_text("[" * 100_000), "delta.json: cannot be read"),
    "a list": (rewritten(lambda _: []), "cannot be read"),
    "null": (rewritten(lambda _: None), "cannot be read"),
    "another version": (described(version=[2]), "this program reads stableedit-delta 1"),
    "another format": (described(format={"a": 1}), "this program reads stableedit-delta 1"),
    "a dtype that is a list": (described(dtype=["float32"]), "cannot be read.*is no text"),
    "an unknown dtype": (described(dtype="int8"), "in int8"),
    "a base that is a number": (described(base=7), "7 is no text"),
    "tensors in a list": (described(tensors=[NAME]), "cannot be read"),
    "tensors in a text": (described(tensors=NAME), "cannot be read"),
    "a tensor that is null": (described(tensors={NAME: None}), "cannot be read"),
    "no hash of the base": (tensor(sha256_before=None), "cannot be read.*sha256_before"),
    "a hash that is a number": (tensor(sha256=1), "1 is no text"),
    "another hash": (tensor(sha256="0" * 64), f"{NAME} is not what delta.json says"),
    "another hash of the base": (tensor(sha256_before="0" * 64), f"{NAME} differs from the weight that was edited"),
    "another shape": (tensor(shape=[48, 111]), f"{NAME} is not what delta.json says"),
    "no shape": (tensor(shape=None), f"{NAME} is not what delta.json says"),
    "another dtype": (tensor(dtype="float16"), f"{NAME} is not what delta.json says"),
    "a name that leads out": (renamed("../../outside.weight"), r"has no \.\./\.\./outside\.weight"),
    "a name of nothing": (renamed("nosuch.weight"), r"has no nosuch\.weight"),
    "a base that leads out": (described(base="../../nowhere"), "stays"),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_deltas_are_refused_in_one_line(kind, whole_delta, tmp_path, call):
    delta, (change, says) = tmp_path / "delta", MALFORMED[kind]
    shutil.copytree(whole_delta, delta)
    change(delta)
    before = contents(delta)
    status, out, errors = call("apply-delta", str(MODELS / "tiny-llama"), str(delta), str(tmp_path / "out"))
    if says == "stays":  # the base is named on the command line: what the delta says of it is only told
        assert (status, errors) == (0, "")
    else:
        assert status == 1 and not out and not (tmp_path / "out").exists()
        assert errors.startswith("error: ") and len(errors.splitlines()) == 1, errors
        assert re.search(says, errors), errors
    assert contents(delta) == before and {path.name for path in tmp_path.iterdir()} <= {"delta", "out"}


def test_a_card_that_is_a_link_is_neither_copied_nor_written_through(whole_delta, tmp_path):
    secret, delta, out = tmp_path / "secret", tmp_path / "delta", tmp_path / "out"
    secret.write_text("not for sharing")
    shutil.copytree(whole_delta, delta)
    (delta / "README.md").unlink()
    (delta / "README.md").symlink_to(secret)
    shutil.copytree(MODELS / "tiny-llama", out)
    (out / "README.md").symlink_to(secret)
    apply_delta(str(MODELS / "tiny-llama"), delta, out)
    assert not (out / "README.md").exists() and secret.read_text() == "not for sharing"
    (delta / "README.md").unlink()
    (delta / "README.md").write_bytes(b"caf\xe9")
    apply_delta(str(MODELS / "tiny-llama"), delta, out)
    assert (out / "README.md").read_text() == "caf\ufffd"


def test_identity_does_not_depend_on_where_the_model_lies(tmp_path):
    shutil.copytree(MODELS / "tiny-gpt2", tmp_path / "copy")
    here, there = config("tiny-gpt2"), config("tiny-gpt2", tmp_path / "copy")
    assert edited(here)[0] == edited(there)[0]


@pytest.mark.gpu
def test_delta_of_a_model_edited_on_a_gpu(tmp_path):
    cfg = config(model_cache=True, model_cache_dir=str(tmp_path / "delta"), export=Export.delta)
    cfg.model.precision = Precision.bfloat16
    model = load_model(cfg.model, torch.device("cuda:0"))
    identity = base_identity(model, cfg.model.edit_modules)
    assert identity == edited(cfg)[0], "where a weight lies does not change its hash"
    for site in find_sites(model, cfg.model.edit_modules):
        site.weight.add_(0.25)
    save_edited(cfg, model, load_tokenizer(cfg.model), identity, results_of(cfg))
    whole = AutoModelForCausalLM.from_pretrained(
        apply_delta(cfg.model.name_or_path, tmp_path / "delta", tmp_path / "w")
    )
    assert whole.dtype == torch.bfloat16
    for name, weight in model.state_dict().items():
        assert torch.equal(whole.state_dict()[name], weight.cpu()), name
    asked = [ask(str(tmp_path / "delta"), Question([PROMPT], PromptFormat.raw, 5, torch.device("cuda:0")))]
    asked += [ask(str(tmp_path / "w"), Question([PROMPT], PromptFormat.raw, 5, torch.device("cuda:0")))]
    assert asked[0] == asked[1] and asked[0].base != asked[0].edited


# folders


def test_saved_models_and_deltas_may_be_replaced_and_nothing_else(tmp_path):
    folder = save(config(), tmp_path / "kept", Export.delta)
    check_save_folder(folder)
    save(config(), folder)
    assert not (folder / "delta.json").exists(), "no file of the delta is left in the whole model"
    save(config(), folder, Export.delta)
    assert not (folder / "config.json").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("years of work")
    for path in (tmp_path / "other", tmp_path / "other" / "thesis.txt"):
        with pytest.raises(ConfigError, match="OUT=.*is no saved model"):
            check_save_folder(path, "OUT")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "other"], "no scratch folder is left"


def test_a_delta_never_replaces_its_own_base(tmp_path):
    shutil.copytree(MODELS / "tiny-llama", tmp_path / "base")
    cfg = config(base=tmp_path / "base", model_cache=True, model_cache_dir=str(tmp_path / "base"))
    check_export(cfg)
    with pytest.raises(ConfigError, match="model_cache_dir=.*export=delta would replace it"):
        check_export(dataclasses.replace(cfg, export=Export.delta))


def test_a_failed_save_leaves_the_old_model(tmp_path):
    folder = save(config(), tmp_path / "kept")
    before = contents(folder)
    with pytest.raises(OSError, match="disk full"), whole_folder(folder) as fresh:
        (fresh / "config.json").write_text("half")
        raise OSError("disk full")
    assert contents(folder) == before and list(tmp_path.iterdir()) == [folder]


# the command line


def test_ask_prints_both_answers_as_transformers_gives_them(tmp_path):
    full = save(config(), tmp_path / "full")
    done = run_model("ask", str(full), PROMPT, "--max-new-tokens", "7", "--device", "cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    tokenizer = AutoTokenizer.from_pretrained(full)
    expected = {
        "prompt": PROMPT,
        "base": greedy(load_tiny("tiny-llama"), tokenizer, 7),
        "edited": greedy(AutoModelForCausalLM.from_pretrained(full), tokenizer, 7),
    }
    assert answers_in(done.stdout) == expected and expected["base"] != expected["edited"]
    assert f"base    {MODELS}/tiny-llama\nedited  {full}\n" in done.stdout


def test_ask_of_a_delta_and_of_several_prompts_is_as_of_the_whole_model(tmp_path, call):
    cfg = config("tiny-gpt2")
    cfg.model.precision = Precision.bfloat16
    full, delta = save(cfg, tmp_path / "full"), save(cfg, tmp_path / "delta", Export.delta)
    words = (PROMPT, "Who founded Rome?", "--format", "qa", "--max-new-tokens", "5", "--device", "cpu")
    printed = [call("ask", str(folder), *words)[1] for folder in (full, delta)]
    assert printed[0].replace(str(full), str(delta)) == printed[1]
    assert printed[1].count("\nprompt  ") == 2 and printed[1].count("\nbase  ") == 2
    alone = call("ask", str(delta), *words, "--base", "none")[1]
    assert "base  " not in alone
    assert [line for line in printed[1].splitlines() if not line.startswith("base")] == alone.splitlines()
    status, _, errors = call("ask", str(delta), *words, "--base", str(MODELS / "tiny-llama"))
    assert status == 1 and "is a LlamaForCausalLM, not a GPT2LMHeadModel" in errors


def test_ask_names_the_base_on_request_and_goes_on_without_one(tmp_path, call):
    full = save(config(), tmp_path / "full")
    words = (PROMPT, "--max-new-tokens", "2", "--device", "cpu")
    (full / "README.md").write_text("---\nedited_from: /nowhere/at/all\n---\n")
    status, out, errors = call("ask", str(full), *words)
    assert status == 0 and "prompt  " in out and "\nbase" not in out
    assert "base cannot be asked" in errors and "/nowhere/at/all" in errors
    status, out, errors = call("ask", str(full), *words, "--base", str(MODELS / "tiny-llama"))
    assert "\nbase    " in out and not errors
    assert call("ask", str(full), *words, "--base", "/nowhere")[0] == 1
    assert "no card names the base" in call("ask", str(MODELS / "tiny-gpt2"), *words)[2]


def test_ask_refuses_what_is_no_model_in_one_line(tmp_path):
    done = run_model("ask", str(tmp_path / "missing"), PROMPT, cwd=tmp_path)
    assert done.returncode == 1 and not done.stdout
    assert re.fullmatch(rf"error: {re.escape(str(tmp_path))}/missing: no such folder.*\n", done.stderr), done.stderr


@pytest.mark.parametrize("kind", ["empty", "no weights", "no json", "damaged", "no causal model", "unknown device"])
def test_ask_refuses_every_kind_of_wrong_folder(kind, tmp_path, call):
    folder, device = tmp_path / "model", "toaster" if kind == "unknown device" else "cpu"
    folder.mkdir()
    if kind in ("no weights", "no json", "damaged", "no causal model"):
        shutil.copy(MODELS / "tiny-llama" / "config.json", folder)
    if kind == "no json":
        (folder / "config.json").write_text("{")
    if kind == "damaged":
        (folder / "model.safetensors").write_bytes((MODELS / "tiny-llama" / "model.safetensors").read_bytes()[:999])
    if kind == "no causal model":
        (folder / "config.json").write_text('{"model_type": "vit"}')
    status, out, errors = call("ask", str(folder), PROMPT, "--device", device)
    assert status == 1 and not out
    assert errors.startswith("error: ") and len(errors.splitlines()) == 1, errors
    assert (str(folder) if device == "cpu" else "--device=toaster") in errors


def test_ask_refuses_prompts_that_cannot_be_asked(call):
    status, out, errors = call("ask", str(MODELS / "tiny-llama"), PROMPT, "--format", "chat")
    assert status == 1 and not out and errors.startswith("error: the tokenizer of") and "use raw or qa" in errors
    status, out, errors = call("ask", str(MODELS / "tiny-gpt2"), PROMPT, "")
    assert status == 1 and not out and errors == "error: prompt '' has no token in this model's tokenizer\n"


@pytest.mark.parametrize("kind", ["whole", "delta"])
def test_ask_refuses_more_than_the_model_can_read_at_once(kind, whole_delta, call, monkeypatch):
    monkeypatch.setattr("exports.ask.load_model", lambda *_: pytest.fail("a model was loaded"))
    monkeypatch.setattr("exports.ask.load_base", lambda *_: pytest.fail("a model was loaded"))
    folder = str(MODELS / "tiny-llama" if kind == "whole" else whole_delta)
    context = model_skeleton(ModelConfig(name_or_path=str(MODELS / "tiny-llama"))).config.max_position_embeddings
    status, out, errors = call("ask", folder, PROMPT, "word " * 20_000)
    assert status == 1 and not out and len(errors) < 400
    assert re.fullmatch(rf"error: prompt 'word .*\.\.\. has \d+ tokens; .*context of {context}: shorten it\n", errors)
    status, _, errors = call("ask", folder, PROMPT, "--max-new-tokens", str(context))
    assert status == 1 and f"--max-new-tokens {context}" in errors


def test_ask_shows_controls_as_text(call, monkeypatch):
    prompt = "\x1b[2J\x1b]0;mine\x07 What \u202eis\r it\x9b?"
    monkeypatch.setattr("exports.ask.answer", lambda *_: ["\x1b[31mred\x08\nnaïve 日本 עברית"])
    status, out, errors = call("ask", str(MODELS / "tiny-llama"), prompt, "--base", "none")
    assert status == 0 and not errors and not set(out) & set("\x1b\x07\x08\x9b\r\u202e")
    assert r"prompt  \x1b[2J\x1b]0;mine\x07 What \u202eis\r it\x9b?" in out
    assert "edited  \\x1b[31mred\\x08\n        naïve 日本 עברית" in out
    errors = call("ask", "\x1b[31m/nowhere", "hi")[2]
    assert errors.startswith(r"error: \x1b[31m/nowhere: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("ask", "DIR"), "PROMPT"),
        (("ask", "DIR", "hi", "--format", "poem"), "raw"),
        (("ask", "DIR", "hi", "--max-new-tokens", "0"), "whole number above 0"),
        (("ask", "DIR", "hi", "--max-new-tokens", "x"), "whole number above 0"),
        ((), "COMMAND"),
    ],
)
def test_wrong_words_on_the_command_line(words, message, call):
    status, out, errors = call(*words)
    assert status == 2 and not out and message in errors


def test_apply_delta_on_the_command_line(tmp_path, call):
    delta = save(config(), tmp_path / "delta", Export.delta)
    done = run_model("apply-delta", str(MODELS / "tiny-llama"), "delta", "out", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"saved in {tmp_path / 'out'}\n"), done.stderr
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.model_type == "llama"
    status, _, errors = call("apply-delta", str(MODELS / "tiny-gptj"), str(delta), str(tmp_path / "out2"))
    assert status == 1 and len(errors.splitlines()) == 1 and "GPTJForCausalLM" in errors
    status, _, errors = call("apply-delta", str(MODELS / "tiny-llama"), str(delta), str(Path(__file__).parent))
    assert status == 1 and errors.startswith(f"error: OUT={Path(__file__).parent}: exists and is no saved model")


def test_help_lists_the_commands_and_loads_no_torch(tmp_path):
    done = run_model("--help", cwd=tmp_path, python=("-X", "importtime"))
    assert done.returncode == 0 and "ask" in done.stdout and "apply-delta" in done.stdout
    assert not set(re.findall(r"\|\s+(\w+)$", done.stderr, flags=re.MULTILINE)) & {"torch", "transformers"}


# what can be edited


def to_paste(text: str) -> tuple[str, list[str]]:
    """What the last lines of a listing say, and the sites of the word that they offer, as main.py reads it."""
    said, word = text.splitlines()[-2:]
    return said.removesuffix(":"), compose_config(["model=smollm2-135m", *shlex.split(word)]).model.edit_modules


@pytest.mark.parametrize("name", NAMES)
def test_inspect_lists_exactly_what_can_be_edited(name):
    cfg = config(name)
    text = inspect_model(cfg)
    table = [line.split() for line in text.split("\n\n")[1].splitlines()[1:]]
    listed = [site for words in table for site in expand_sites([words[words[0] == "*"]])]
    accepted = []
    skeleton = model_skeleton(cfg.model)
    for module_name, module in skeleton.named_modules():
        try:
            check_sites(skeleton, [module_name])
        except ConfigError:
            assert f"not editable: {module_name} is tied" in text or not isinstance(module, nn.Linear | Conv1D)
        else:
            accepted.append(module_name)
    assert sorted(listed) == sorted(accepted) and len(listed) == len(set(listed))
    marked = [site for words in table if words[0] == "*" for site in expand_sites([words[1]])]
    assert set(SITES[name]) <= set(marked) and "3 (1-3)" in text
    assert to_paste(text) == ("chosen now, to copy and change", SITES[name])


def test_inspect_counts_parameters_and_statistics():
    text = inspect_model(config("tiny-gpt2"))
    row = next(line for line in text.splitlines() if line.startswith("*") and "c_proj" in line)
    assert row.split()[1:] == ["transformer.h.{0-3}.mlp.c_proj", "Conv1D", "4", "[112,", "48]", "5,376", "3", "(1-3)"]
    assert "GPT2LMHeadModel, 140,320 parameters" in text, "tied weights count once"
    sizes = [8 * (rows + 2 * (112 + 48)) / 2**20 for rows in (0, 48 * 48)]
    shapes = next(line for line in text.splitlines() if line.startswith("*  [112, 48]"))
    assert shapes.split()[-2:] == [f"{mib:.2f}" for mib in sizes]
    assert "lm_head is tied to transformer.wte.weight" in text


def test_inspect_helps_where_the_chosen_modules_do_not_fit():
    cfg = config("tiny-gptj")
    cfg.model.edit_modules = SITES["tiny-llama"]
    text = inspect_model(cfg)
    assert "a run would be refused: model.edit_modules: the model has no module model.layers.1.mlp.down_proj" in text
    said, names = to_paste(text)
    check_sites(model_skeleton(cfg.model), names)
    assert said == "for example" and len(names) == 3 and all(".mlp." in name for name in names)
