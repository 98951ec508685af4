"""The learned editors: checkpoints, training that leaves the weights alone, and keys that do what they say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from config.check import ConfigError
from config.compose import compose_config
from editor.learned import LearnedEditor
from lifelong import run as lifelong_run
from lifelong import session, setup
from lifelong.loop import Training
from lifelong.recorder import Recorder
from tests.reference_cases import OWN, load_case, overrides

CASE = {"malmen": "malmen_zsre", "mend": "mend_zsre", "rledit": "rledit_zsre"}


def config(editor: str, work_dir: Path, *words: str):
    """A reference case's config, with more overrides."""
    return compose_config([*overrides(load_case(CASE[editor], OWN).expected, work_dir, OWN), *words])


def run(editor: str, work_dir: Path, *words: str) -> tuple[dict, list[dict]]:
    """A whole run; its results and the lines of metrics.jsonl."""
    results = lifelong_run.run(config(editor, work_dir, *words), work_dir / "run")
    return results, [json.loads(line) for line in (work_dir / "run" / "metrics.jsonl").read_text().splitlines()]


def trained(editor: str, work_dir: Path, *words: str) -> LearnedEditor:
    """A learned editor after training alone."""
    cfg = config(editor, work_dir, *words)
    device, (data, tokenizer) = torch.device("cpu"), setup.prepare(cfg)
    with (
        session.open_session(cfg, tokenizer, device, device) as opened,
        Recorder(work_dir / "run", cfg.wandb, "test", {}) as recorder,
    ):
        made = opened.editor
        before = made.snapshot()
        assert list(Training(opened, data.training, recorder).steps())
    for site, (weight, _) in zip(made.sites, before, strict=True):
        assert torch.equal(site.weight, weight), f"training left a trace in {site.name}"
    return made


def parameters(editor: LearnedEditor) -> torch.Tensor:
    """All of the networks' parameters in one vector."""
    return torch.cat([parameter.detach().flatten() for parameter in editor.networks.parameters])


@pytest.mark.parametrize("editor", CASE)
def test_training_moves_the_network_and_not_the_model(editor, tmp_path):
    made = trained(editor, tmp_path / "a")
    assert not torch.equal(parameters(made), parameters(trained(editor, tmp_path / "b", "editor.meta_lr=1e-12")))
    rows = next(iter(made.statistics.values())).n
    assert rows > 0, "training fills the statistics"


@pytest.mark.parametrize("editor", CASE)
def test_checkpoint_reproduces_the_run_bit_for_bit(editor, tmp_path):
    first, lines = run(editor, tmp_path / "first", "editor.save_checkpoint=true")
    folder = tmp_path / "first" / "run" / "checkpoint"
    again, later = run(editor, tmp_path / "again", f"editor.load_checkpoint={folder}")
    assert [again[name] for name in ("ES", "GS", "LS")] == [first[name] for name in ("ES", "GS", "LS")]
    steps = [line["sites"] for line in lines if line["event"] == "step"]
    assert [line["sites"] for line in later if line["event"] == "step"] == steps
    assert not any(line["event"] == "train" for line in later)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["editor.rank=8"], "its rank is 16, this run's is 8"),
        (["editor.n_blocks=1"], "its n_blocks is 2, this run's is 1"),
        (["model.edit_modules=[model.layers.1.mlp.down_proj]"], "its sites is"),
    ],
)
def test_checkpoint_of_something_else_is_refused(words, named, tmp_path, monkeypatch):
    made = trained("malmen", tmp_path / "a")
    made.save_networks(tmp_path / "checkpoint")
    monkeypatch.setattr(session, "load_model", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(ConfigError, match=named):
        run("malmen", tmp_path / "b", f"editor.load_checkpoint={tmp_path / 'checkpoint'}", *words)


def test_checkpoint_of_other_shapes_is_refused(tmp_path):
    made = trained("malmen", tmp_path / "a")
    made.save_networks(tmp_path / "checkpoint")
    made.sites[0].d_k += 1
    with pytest.raises(ConfigError, match="its sites is"):
        made.load_networks(tmp_path / "checkpoint")


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"editor\.load_checkpoint=.*is no checkpoint"):
        run("malmen", tmp_path, f"editor.load_checkpoint={tmp_path / 'nothing'}")


def test_a_damaged_checkpoint_is_refused_in_words(tmp_path):
    made, folder = trained("malmen", tmp_path / "a"), tmp_path / "checkpoint"
    no_sites = '{"editor": "malmen", "rank": 16, "n_blocks": 2, "sites": 7}'
    for name, contents in {"checkpoint.json": ["[]", "null", no_sites, "{}"], "tensors.safetensors": ["x"]}.items():
        for content in contents:
            made.save_networks(folder)
            made.load_networks(folder)
            (folder / name).write_text(content)
            with pytest.raises(ConfigError, match=r"editor\.load_checkpoint=.*is no checkpoint .*save_checkpoint=true"):
                made.load_networks(folder)


def test_n_epochs_passes_over_the_training_steps(tmp_path):
    _, lines = run("malmen", tmp_path, "editor.n_epochs=2", "num_seq=2")
    assert [(line["epoch"], line["index"]) for line in lines if line["event"] == "train"] == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
    ]


def test_reg_coef_is_reported_and_changes_nothing(tmp_path):
    first, _ = run("malmen", tmp_path / "a", "editor.reg_coef=0.5")
    second, _ = run("malmen", tmp_path / "b", "editor.reg_coef=0.25")
    assert (first["train"]["reg_coef"], second["train"]["reg_coef"]) == (0.5, 0.25)
    assert first["ES"] == second["ES"]


@pytest.mark.parametrize(
    ("editor", "word"),
    [
        ("malmen", "editor.loc_coef=5"),
        ("malmen", "editor.max_grad_norm=1e-9"),
        ("rledit", "editor.time_decay=0.1"),
        ("rledit", "editor.back_depth=1"),
        ("mend", "editor.lr=1e-4"),
    ],
)
def test_every_key_has_an_effect(editor, word, tmp_path):
    plain, changed = trained(editor, tmp_path / "a"), trained(editor, tmp_path / "b", word)
    assert not torch.equal(parameters(plain), parameters(changed))


def test_a_short_training_file_makes_fewer_steps(tmp_path):
    rows = json.loads(Path(config("malmen", tmp_path).dataset.train_path).read_text())[:40]
    (tmp_path / "short.json").write_text(json.dumps(rows))
    _, lines = run("malmen", tmp_path, f"dataset.train_path={tmp_path / 'short.json'}")
    assert sum(line["event"] == "train" for line in lines) == 2
    assert sum(line["event"] == "step" for line in lines) == 5
