"""config/: every published preset, group and default composes to what it must, and the command line shows them."""

from __future__ import annotations

import json
import re
import shlex
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from config.check import check_override_names, check_values
from config.schema import Config, register
from editor.registry import editor_class
from tests.tiny import PROJECT, run_main

CONFIG = PROJECT / "config"
PRESETS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "presets.json").read_text())
EXPERIMENTS = sorted(path.stem for path in (CONFIG / "experiment").glob("*.yaml"))
GROUPS = {
    group: sorted(path.stem for path in (CONFIG / group).glob("*.yaml")) for group in ("dataset", "model", "editor")
}
NAMES = ("dataset", "model", "editor")
PUBLISHED = (
    "dataset=zsre model=mistral-7b editor=stableedit num_seq=200 num_seq_zsre=20 model_device=cuda:0 "
    "editor_device=cuda:0 downstream_eval_steps=0 dataset.n_edits=100 dataset.batch_size=10 editor.cache_dir=cache "
    "editor.batch_size=512 editor.alpha=10 editor.lr=1e-6 editor.RunningMeanStd_mode=stable editor.preheat_mode=start "
    "model.edit_modules=[model.layers.29.mlp.down_proj,model.layers.30.mlp.down_proj] editor.load_checkpoint=null"
)


@pytest.fixture(scope="module", autouse=True)
def hydra():
    """One Hydra for the module: each compose is then some ten milliseconds."""
    register()
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        yield


def experiment_name(preset: dict[str, Any]) -> str:
    """DATASET_MODEL, the long runs with their size."""
    long = {("wikibigedit", "5000"): "wikibigedit-500k", ("ultraeditbench", "20000"): "ultraeditbench-2m"}
    return f"{long.get((preset['dataset'], preset['num_seq']), preset['dataset'])}_{preset['model']}"


def preset_words(preset: dict[str, Any]) -> list[str]:
    """The preset as the words of its published command."""
    return [
        f"{key}=[{','.join(value)}]" if isinstance(value, list) else f"{key}={value}" for key, value in preset.items()
    ]


def preset_value(key: str, text: Any) -> Any:
    """A preset's value, which stands there as a string, in its own type."""
    if isinstance(text, list):
        return text
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def composed(*words: str) -> Config:
    """What `main.py WORDS` runs with."""
    return OmegaConf.to_object(compose("config", overrides=list(words)))


@cache
def experiment(name: str) -> Config:
    """An experiment's configuration."""
    return composed(f"experiment={name}")


def value_at(cfg: Config, key: str) -> Any:
    """The value of a dotted key, enums by name; a group's by its name."""
    plain = OmegaConf.to_container(OmegaConf.structured(cfg), enum_to_str=True)
    for part in (f"{key}.name" if key in NAMES else key).split("."):
        plain = plain[part]
    return plain


def test_there_are_24_presets_of_24_names():
    assert len({experiment_name(preset) for preset in PRESETS}) == len(PRESETS) == 24


@pytest.mark.parametrize("preset", PRESETS, ids=experiment_name)
def test_experiment_has_the_presets_values(preset):
    cfg = experiment(experiment_name(preset))
    for key, text in preset.items():
        assert value_at(cfg, key) == preset_value(key, text), key
    check_values(cfg)
    editor_class(cfg.editor.name).check(cfg.editor)


@pytest.mark.parametrize("preset", PRESETS, ids=experiment_name)
def test_experiment_is_its_published_command(preset):
    words = preset_words(preset)
    check_override_names(words)
    assert composed(*words) == experiment(experiment_name(preset))


SMALL = "dataset=facts model=smollm2-135m num_seq=5 num_seq_zsre=2 dataset.n_edits=100 dataset.batch_size=10"
LAYERS = [f"model.layers.{layer}.mlp.down_proj" for layer in (24, 25, 26, 27)]
FLOOR = "editor.whitening_floor=1e-2 editor.whitening_floor_mode=relative"
OURS = {
    "quickstart": f"{SMALL} editor=stableedit editor.lr=1.5e-3 editor.alpha=10 {FLOOR}",
    "quickstart_ultraedit": f"{SMALL} editor=ultraedit editor.lr=1e-3 editor.alpha=1 {FLOOR}",
    "quickstart_malmen": f"{SMALL} editor=malmen editor.lr=1e-3 editor.meta_lr=1e-5 editor.rank=256",
    "quickstart_mend": f"{SMALL} editor=mend editor.lr=1e-4 editor.meta_lr=1e-5 editor.rank=256",
    "quickstart_rledit": f"{SMALL} editor=rledit editor.lr=1e-3 editor.meta_lr=1e-5 editor.rank=256",
    "sweep_alpha_preheat": f"{SMALL} editor=stableedit editor.lr=1.5e-3 editor.alpha=10 {FLOOR} "
    "num_seq=2 num_seq_zsre=1 dataset.n_edits=50 eval.every=1 eval.sample=40 eval.knowns=40",
}


@pytest.mark.parametrize("name", OURS)
def test_our_experiment_is_its_command(name):
    sites = f"model.edit_modules=[{','.join(LAYERS)}]"
    assert experiment(name) == composed(*OURS[name].split(), sites, "editor.batch_size=512")
    check_values(experiment(name))


def test_overrides_win_over_an_experiment():
    cfg = composed("experiment=zsre_mistral-7b", "num_seq=3", "editor.alpha=7", "model=gpt-j")
    assert (cfg.num_seq, cfg.editor.alpha, cfg.model.name) == (3, 7, "gpt-j")


def test_groups_are_those_of_the_design():
    by_path = {"custom", "counterfact", "qaedit", "easyedit", "knowedit", "mquake"}
    assert set(GROUPS["dataset"]) == {"zsre", "fever", "wikibigedit", "ultraeditbench", "facts"} | by_path
    assert set(GROUPS["model"]) == {"mistral-7b", "llama-3-instruct", "gpt-j", "qwen2.5-7b", "smollm2-135m"}
    editors = {"stableedit", "ultraedit", "rledit", "malmen", "mend", "margin"}
    editors |= {"memit", "alphaedit", "recursive_ridge"}
    assert set(GROUPS["editor"]) == editors | {"none", "in_context", "finetune"}  # the latter edit nothing, or plainly


SHIPPED = ("zsre", "fever", "wikibigedit", "ultraeditbench", "facts")


@pytest.mark.parametrize(("editor", "model"), list(product(GROUPS["editor"], GROUPS["model"])))
def test_every_combination_composes(editor, model):
    for dataset in GROUPS["dataset"]:
        own = ["dataset.train_path=more.csv", "dataset.valid_path=mine.csv"] if dataset not in SHIPPED else []
        cfg = composed(f"dataset={dataset}", f"model={model}", f"editor={editor}", *own)
        assert (cfg.dataset.name, cfg.model.name, cfg.editor.name) == (dataset, model, editor)
        assert cfg.model.edit_modules and cfg.dataset.train_path and cfg.dataset.valid_path
        check_values(cfg)
        editor_class(editor).check(cfg.editor)
        kept = [getattr(cfg.editor, key, None) for key in ("save_checkpoint", "load_checkpoint")]
        assert not any(kept), "defaults must not warn"


LEARNED = {"meta_lr": 1e-5, "max_grad_norm": 1, "n_epochs": 1}
MALMEN = LEARNED | {"rank": 1024, "n_blocks": 4, "loc_coef": 0.6, "batch_size": 128, "reg_coef": 1e-4, "token": "ans"}
DEFAULTS = {
    "stableedit": {
        "lr": 1e-6, "alpha": 1.0, "batch_size": 128, "RunningMeanStd_mode": "stable", "preheat_mode": "start",
        "whitening_floor": 1e-6, "whitening_floor_mode": "absolute", "float32_masters": False, "token": "ans",
    },
    "ultraedit": {"lr": 1e-6, "alpha": 1.0, "RunningMeanStd_mode": "original", "preheat_mode": "none", "token": "ans"},
    "margin": {"margin": 0.3, "passes": 2, "text": "own", "text_weight": 1e3, "damping": 1e-2, "token": "ans"},
    "recursive_ridge": {"lr": 5e-4, "alpha": 1.0, "RunningMeanStd_mode": "original", "preheat_mode": "none"},
    "alphaedit": {"lr": 5e-4, "alpha": 1.0, "threshold": 0.3, "RunningMeanStd_mode": "original"},
    "memit": {"lr": 5e-4, "text_weight": 150.0, "RunningMeanStd_mode": "original", "preheat_mode": "none"},
    "malmen": MALMEN,
    "rledit": MALMEN | {"time_decay": 0.95, "back_depth": 10},
    "mend": LEARNED
    | {"rank": 1920, "n_blocks": 2, "loc_coef": 1, "batch_size": 1024, "reg_coef": 1e-2, "token": "all"},
}  # fmt: skip


@pytest.mark.parametrize("editor", list(DEFAULTS))
def test_editor_defaults(editor):
    cfg = composed(f"editor={editor}")
    for key, value in DEFAULTS[editor].items():
        assert value_at(cfg, f"editor.{key}") == value, key


def layers(pattern: str, *numbers: int) -> list[str]:
    return [pattern.format(number) for number in numbers]


SITES = {
    "gpt-j": layers("transformer.h.{}.mlp.fc_out", *range(18, 27)),
    "llama-3-instruct": layers("model.layers.{}.mlp.gate_proj", *range(11, 16))
    + layers("model.layers.{}.mlp.up_proj", *range(18, 25)),
    "mistral-7b": layers("model.layers.{}.mlp.down_proj", 28, 29, 30),
    "qwen2.5-7b": layers("model.layers.{}.mlp.gate_proj", *range(18, 27))
    + layers("model.layers.{}.mlp.up_proj", *range(18, 27)),
}


@pytest.mark.parametrize("model", list(SITES))
def test_default_sites(model):
    assert composed(f"model={model}").model.edit_modules == SITES[model]


def test_run_defaults():
    cfg = composed()
    expected = {
        "dataset": "zsre", "model": "llama-3-instruct", "editor": "stableedit", "num_seq": 200, "num_seq_zsre": 20,
        "num_seq_wikibigedit": 20, "dataset.n_edits": 100, "dataset.batch_size": 10, "seed": 42, "model_device": "auto",
        "downstream_eval_steps": 0, "model_cache": False, "wandb.mode": "offline",
    }  # fmt: skip
    assert {key: value_at(cfg, key) for key in expected} == expected


RAW = {
    "zsre": ("zsre/zsre_train.json", "zsre/zsre_eval_20k.json"),
    "fever": ("fever/fever_train.json", "fever/fever_eval_20k.json"),
    "ultraeditbench": ("ultraeditbench/UltraEditBench_train_20k.json", "ultraeditbench/UltraEditBench_2M.json"),
    "wikibigedit": ("wikibigedit/wikibigedit_train_17k.json", "wikibigedit/wikibigedit_eval_17k.json"),
}


@pytest.mark.parametrize("dataset", list(RAW))
def test_default_paths(dataset):
    cfg = composed(f"dataset={dataset}").dataset
    found = [path.removeprefix("./") for path in (cfg.train_path, cfg.valid_path)]
    assert found == [f"data/raw/{path}" for path in RAW[dataset]]


def test_published_command_composes(tmp_path):
    """The real program, no stand-in: and it resolves the words without loading torch."""
    done = run_main(*PUBLISHED.split(), "--cfg", "job", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    cfg = yaml.safe_load(done.stdout)
    assert cfg["editor"]["alpha"] == 10 and cfg["editor"]["lr"] == 1e-6 and cfg["editor"]["cache_dir"] == "cache"
    assert cfg["editor"]["preheat_mode"] == "start" and cfg["model_device"] == "cuda:0"
    assert cfg["model"]["edit_modules"] == ["model.layers.29.mlp.down_proj", "model.layers.30.mlp.down_proj"]
    assert list(tmp_path.iterdir()) == [], "showing a configuration leaves no files"


def test_help_shows_groups_and_commands(tmp_path):
    done = run_main("--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in [*GROUPS["dataset"], *GROUPS["model"], *GROUPS["editor"], *EXPERIMENTS]:
        assert re.search(rf"[\s,]{re.escape(name)}(,|\s)", done.stdout), name
    commands = re.findall(r"^\s+python main\.py (.*)$", done.stdout, flags=re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        words = [word for word in shlex.split(command) if word != "-m"]
        check_override_names(words)
        compose("config", overrides=[re.sub(r"=([^[,]+),.*", r"=\1", word) for word in words])


def test_experiments_are_the_presets_and_ours():
    assert {experiment_name(preset) for preset in PRESETS} <= set(EXPERIMENTS)
    assert OURS.keys() <= set(EXPERIMENTS)
