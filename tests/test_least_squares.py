"""memit, alphaedit, recursive_ridge: their equations in plain float64, their text, what a failed step leaves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from config.check import ConfigError
from config.choices import TokenRows
from config.compose import compose_config
from data.batches import StepBatches, step_batches
from editor import least_squares
from editor.alphaedit import null_space
from editor.capture import capture_together
from editor.least_squares import LeastSquares
from editor.metric import FLOOR
from editor.registry import editor_class
from editor.sites import EditSite, find_sites
from editor.text import beginnings, first_tokens, prompts_of, written
from lifelong import run as lifelong_run
from nets import EPSILON, NumericsError
from tests.reference_cases import relative
from tests.tiny import SITES, load_tiny, tiny_edits, tiny_tokenizer, tiny_words

KEYS: dict[str, dict[str, float]] = {
    "recursive_ridge": {"alpha": 2e-3}, "alphaedit": {"alpha": 2e-3, "threshold": 0.5}, "memit": {"text_weight": 20.0}
}  # fmt: skip
Pair = tuple[Tensor, Tensor]


def editor_on(name: str, editor: str, **more: Any) -> LeastSquares:
    """The editor at work on a tiny model."""
    kind, model = editor_class(editor), load_tiny(name)
    cfg = kind.config_class(name=editor, **({"lr": 1e-2} | KEYS[editor] | more))
    found = kind(cfg, model, find_sites(model, SITES[name]), seed=5)
    assert isinstance(found, LeastSquares)
    return found


def batches_for(name: str, first: int = 0, count: int = 6) -> StepBatches:
    return step_batches(tiny_tokenizer(name), tiny_edits(count=first + count)[first:], 4)


def rows_now(editor: LeastSquares, batches: StepBatches) -> list[Pair]:
    """Keys and value gradients of every site at the weights as they are, float64."""
    parts = [capture_together(editor.model, editor.sites, [batch], editor.cfg.token)[0].rows for batch in batches.edit]
    sites = range(len(editor.sites))
    rows = [([part[at].keys_NK for part in parts], [part[at].gradients_NV for part in parts]) for at in sites]
    return [(torch.cat(keys).double(), torch.cat(gradients).double()) for keys, gradients in rows]


def targets(now: Pair, seen: list[Pair], lr: float) -> Tensor:
    """-lr |k|^2 g, each coordinate normalized by all rows so far."""

    def normal(rows: Tensor, at: int) -> Tensor:
        pooled = torch.cat([pair[at] for pair in seen])
        return (rows - pooled.mean(0)) / (pooled.std(0) + EPSILON)

    return -lr * normal(now[0], 0).square().sum(1, keepdim=True) * normal(now[1], 1)


def plain(editor: str, text: Tensor, earlier: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """The papers' equations, inverses and projections written out."""
    unit, own = torch.eye(len(text), dtype=torch.float64), KEYS[editor]
    if editor == "memit":
        system = own["text_weight"] * (text + FLOOR * text.diagonal().mean() * unit) + keys.T @ keys
        return torch.linalg.inv(system) @ keys.T @ values
    if editor == "recursive_ridge":
        return torch.linalg.inv(own["alpha"] * unit + earlier.T @ earlier + keys.T @ keys) @ keys.T @ values
    basis = null_space(text, own["threshold"])
    p = basis @ basis.T
    system = earlier.T @ earlier @ p + keys.T @ keys @ p + own["alpha"] * unit
    return p @ torch.linalg.inv(system) @ keys.T @ values


@pytest.mark.parametrize("token", list(TokenRows))
@pytest.mark.parametrize("editor", KEYS)
@pytest.mark.parametrize("name", SITES)
def test_two_steps_are_the_equations(name, editor, token):
    """Fewer rows than d_k, and more; Linear and Conv1D; the second step at the weights that the first left."""
    editing = editor_on(name, editor, token=token)
    texts = editing.text_moments(batches_for(name, count=12))
    seen: list[Pair] = []
    earlier = [torch.zeros(0, site.d_k, dtype=torch.float64) for site in editing.sites]
    for start in (0, 12):
        batches = batches_for(name, start, 12)
        rows = rows_now(editing, batches)
        seen += rows
        expected = [
            plain(editor, text, before, pair[0], targets(pair, seen, editing.cfg.lr))
            for text, before, pair in zip(texts, earlier, rows, strict=True)
        ]
        weights = [site.weight.clone() for site in editing.sites]
        editing.step(batches, warm_up=False)
        for site, weight, shift in zip(editing.sites, weights, expected, strict=True):
            assert relative(editing.last_shifts[site.name].matrix(), shift) < 2e-4
            assert relative(site.weight - weight, shift.T if site.transposed else shift) < 2e-3
        earlier = [torch.cat([before, pair[0]]) for before, pair in zip(earlier, rows, strict=True)]
    wide = all(len(pair[0]) > site.d_k for site, pair in zip(editing.sites, rows, strict=True))
    assert wide == (token is TokenRows.all), "both ways to solve are tried"


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-gpt2"])
def test_the_text_is_the_models_own_and_every_kind_counts_alike(name, monkeypatch):
    monkeypatch.setattr(least_squares, "FEWEST", 2)
    editor, batches = editor_on(name, "memit"), batches_for(name)
    draw, prompts = torch.Generator().manual_seed(editor.seed), prompts_of(batches.edit)
    seeds = [kind(prompts, 4, draw) for kind in (first_tokens, beginnings)]  # 4 x 32 tokens for a d_k of 112
    keys: list[Tensor] = []
    handle = editor.sites[1].module.register_forward_pre_hook(lambda _, inputs: keys.append(inputs[0].double()))
    means = []
    for one in seeds:
        total, count = torch.zeros(112, 112, dtype=torch.float64), 0
        for batch in written(editor.model, one, 32, draw):
            keys.clear()
            editor.model(batch.input_ids_BT)
            rows = keys[0][batch.labels_BT >= 0]
            total, count = total + rows.T @ rows, count + len(rows)
        assert count == 4 * 32
        means.append(total / count)
    handle.remove()
    assert relative(editor.text_moments(batches)[1], (means[0] + means[1]) / 2) < 1e-5
    assert relative(editor_on(name, "alphaedit").text_moments(batches)[1], (means[0] + means[1]) / 2) < 1e-5


def test_alphaedit_changes_nothing_that_text_uses():
    editor = editor_on("tiny-llama", "alphaedit")
    texts = editor.text_moments(batches_for("tiny-llama"))
    editor.step(batches_for("tiny-llama"), warm_up=False)
    for site, text in zip(editor.sites, texts, strict=True):
        used = torch.linalg.eigh(text)[1][:, editor.kept[f"basis/{site.name}"].shape[1] :]
        shift = editor.last_shifts[site.name].matrix().double()
        assert 0 < used.shape[1] < site.d_k and (used.T @ shift).norm() < 1e-5 * shift.norm()


def test_the_null_space_is_relative_to_the_mean_eigenvalue():
    moment = torch.diag(torch.tensor([5.0, 0.4, 0.5, 6.1])).double()  # mean 3
    for scale in (1e-6, 1.0, 1e6):
        basis = null_space(scale * moment, 0.15)
        assert torch.equal(basis.abs(), torch.eye(4).double()[:, 1:2]) and basis.is_contiguous()


def dying(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, calls: int) -> None:
    """Let a function fail when it is called once more than `calls` times."""
    real, count = getattr(owner, name), iter(range(10**6))

    def fails(*args: Any, **kwargs: Any) -> Any:
        if next(count) == calls:
            raise NumericsError("spoiled")
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, fails)


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize(("owner", "call", "calls"), [(least_squares, "solve_shifted", 2), (EditSite, "add", 0)])
@pytest.mark.parametrize("editor", KEYS)
def test_a_failed_step_leaves_what_was_kept(editor, owner, call, calls, started, monkeypatch):
    editing = editor_on("tiny-llama", editor)
    if started:
        editing.step(batches_for("tiny-llama", 6), warm_up=False)
    before = {name: value.clone() for name, value in editing.kept.items()}
    with monkeypatch.context() as patch, pytest.raises(NumericsError):
        dying(patch, owner, call, calls)
        editing.step(batches_for("tiny-llama"), warm_up=False)
    assert bool(before) == started and before.keys() == editing.kept.keys()
    assert all(torch.equal(before[name], editing.kept[name]) for name in before)
    editing.step(batches_for("tiny-llama"), warm_up=False)
    assert set(editing.kept) <= set(editing.state_tensors())


@pytest.mark.parametrize("editor", KEYS)
def test_a_run_continues_with_what_was_kept(editor, tmp_path):
    words = tiny_words(
        "checkpoint.every=1", *[f"editor.{key}={value}" for key, value in KEYS[editor].items()], editor=editor
    )
    plan = compose_config([*words, "num_seq=1"])
    lifelong_run.run(plan, tmp_path / "first")
    on = [*words, "num_seq=1", f"continue_from={tmp_path / 'first'}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LeastSquares, "text_moments", None)  # not asked for again
        results = lifelong_run.run(compose_config(on), tmp_path / "second")
    assert results["counts"]["warm_up_steps"] == 0
    for key in KEYS[editor].keys() - {"alpha"}:
        with pytest.raises(ConfigError, match=f"its statistics belong to editor.{key}={KEYS[editor][key]}, not 7.0"):
            lifelong_run.plan_run(compose_config([*on, f"editor.{key}=7"]), tmp_path / "third")


def test_a_text_that_leaves_no_direction_is_told_of():
    editor = editor_on("tiny-llama", "alphaedit", threshold=1e-9)
    with pytest.raises(ConfigError, match=r"editor.threshold=1e-09: every eigenvalue of model.layers.1.mlp.down_proj"):
        editor.step(batches_for("tiny-llama"), warm_up=False)
    assert not editor.kept and not editor.last_shifts and not editor.cache.batches


@pytest.mark.parametrize(
    ("editor", "word", "says"),
    [
        ("memit", "text_weight=0", "editor.text_weight=0.0: must be a finite number above 0"),
        ("memit", "text_weight=inf", "editor.text_weight=inf: must be a finite number above 0"),
        ("alphaedit", "threshold=-1", "editor.threshold=-1.0: must be a finite number above 0"),
        ("alphaedit", "alpha=0", "editor.alpha=0.0: must be a finite number above 0"),
        ("recursive_ridge", "alpha=nan", "editor.alpha=nan: must be a finite number above 0"),
        ("recursive_ridge", "lr=0", "editor.lr=0.0: must be a finite number above 0"),
        ("memit", "RunningMeanStd_mode=stable", "editor.RunningMeanStd_mode=stable: editor=memit means original"),
        ("alphaedit", "preheat_mode=start", "editor.preheat_mode=start: editor=alphaedit means none"),
    ],
)
def test_what_cannot_work_is_refused_in_a_line(editor, word, says, tmp_path):
    with pytest.raises(ConfigError) as caught:
        lifelong_run.plan_run(compose_config([*tiny_words(editor=editor), f"editor.{word}"]), tmp_path / "run")
    assert says in str(caught.value) and "\n" not in str(caught.value)
