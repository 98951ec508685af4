"""editor=margin: its solve against plain float64, its state, and what a failed step leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from config.check import ConfigError
from config.compose import compose_config
from config.editors import MarginConfig
from data.batches import IGNORED, StepBatches, step_batches
from data.everyday import questions
from editor import margin, panel
from editor.margin import Margin, one_by_one
from editor.metric import FLOOR, Metric, Moments, least_change
from editor.registry import editor_class
from editor.sites import EditSite, find_sites
from editor.text import beginnings, continued, first_tokens, moments_of, prompts_of, sampled, written
from lifelong import Fact, Session
from lifelong import run as lifelong_run
from lifelong.tune import check_tuning
from nets import NumericsError
from tests.reference_cases import relative
from tests.test_resume import Killed, assert_same_run, kill_after
from tests.tiny import MODELS, SITES, load_tiny, tiny_edits, tiny_tokenizer, tiny_words

SHAPES = [(7, 5), (12, 4)]


@pytest.fixture(autouse=True)
def _little_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(margin, "TEXTS", 4)
    monkeypatch.setattr(margin, "LENGTH", 6)


def rows_of(count: int, seed: int = 0) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Keys and gradients of every site, and what each token lacks."""
    draw = torch.Generator().manual_seed(seed)

    def rows(width: int) -> Tensor:
        return torch.randn(count, width, generator=draw, dtype=torch.float64)

    return [rows(k) for k, _ in SHAPES], [rows(v) for _, v in SHAPES], rows(1).abs().squeeze(1)


def metric(seed: int = 1) -> Metric:
    """A metric of full rank."""
    draw, kind = torch.Generator().manual_seed(seed), Moments()
    kind.rows = 50
    for width, into in [(k, kind.keys) for k, _ in SHAPES] + [(v, kind.values) for _, v in SHAPES]:
        rows = torch.randn(50, width, generator=draw, dtype=torch.float64)
        into.append(rows.T @ rows)
    return Metric.of([kind], 3.0)


def gains(keys: list[Tensor], gradients: list[Tensor], shifts: list[Tensor]) -> Tensor:
    """-sum_l k^T D g of every token."""
    each = [-((k @ shift) * g).sum(1) for k, g, shift in zip(keys, gradients, shifts, strict=True)]
    return torch.stack(each).sum(0)


def matrices(*args: Any) -> list[Tensor]:
    return [shift.matrix().double() for shift in least_change(*args)]


@pytest.mark.parametrize("count", [1, 3, 9])
def test_every_token_gains_what_it_lacks(count):
    keys, gradients, lacking = rows_of(count)
    found = matrices(keys, gradients, lacking, metric().factors(["a", "b"]), 1e-10)
    torch.testing.assert_close(gains(keys, gradients, found), lacking, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [1, 3, 9])
def test_it_is_the_least_change_in_the_metric(count):
    """Against a dense solve of the stationarity conditions, with B kron A of all sites written out."""
    keys, gradients, lacking = rows_of(count)
    whole = metric()
    blocks = [torch.kron(a, b) for a, b in zip(whole.keys, whole.values, strict=True)]
    hessian = torch.block_diag(*blocks)
    constraints = torch.cat(
        [-(k[:, :, None] * g[:, None, :]).flatten(1) for k, g in zip(keys, gradients, strict=True)], 1
    )
    zeros = torch.zeros(count, count, dtype=torch.float64)
    system = torch.cat([torch.cat([hessian, constraints.T], 1), torch.cat([constraints, zeros], 1)])
    right = torch.cat([torch.zeros(len(hessian), dtype=torch.float64), lacking])
    plain = torch.linalg.solve(system, right)[: len(hessian)]
    found = matrices(keys, gradients, lacking, whole.factors(["a", "b"]), 1e-12)
    assert relative(torch.cat([one.flatten() for one in found]), plain) < 1e-5


def test_damping_is_of_the_unit_diagonal():
    keys, gradients, lacking = rows_of(1)
    factors = metric().factors(["a", "b"])
    half = matrices(keys, gradients, lacking, factors, 1.0)
    torch.testing.assert_close(gains(keys, gradients, half), lacking / 2, rtol=1e-4, atol=1e-5)


def test_the_order_of_rows_and_the_scale_of_gradients_do_not_matter():
    keys, gradients, lacking = rows_of(8)
    factors, order = metric().factors(["a", "b"]), torch.randperm(8, generator=torch.Generator().manual_seed(2))
    found = matrices(keys, gradients, lacking, factors, 1e-2)
    mixed = [[rows[order] for rows in each] for each in (keys, gradients)]
    for one, other in zip(found, matrices(*mixed, lacking[order], factors, 1e-2), strict=True):
        assert relative(one, other) < 1e-5


def test_nothing_is_changed_where_nothing_lacks():
    keys, gradients, lacking = rows_of(3)
    none = [[rows[:0] for rows in each] for each in (keys, gradients)]
    for shift, shape in zip(matrices(*none, lacking[:0], metric().factors(["a", "b"]), 1e-2), SHAPES, strict=True):
        assert torch.equal(shift, torch.zeros(shape, dtype=torch.float64))


def test_kinds_of_text_have_equal_shares():
    one, two = Moments(), Moments()
    one.rows, two.rows = 10, 30
    one.keys, two.keys = [10 * torch.eye(3).double()], [60 * torch.eye(3).double()]
    one.values, two.values = [10 * torch.diag(torch.tensor([1.0, 3.0])).double()], [30 * 8 * torch.eye(2).double()]
    found = Metric.of([one, two], 100.0)
    assert relative(found.keys[0], (1 + FLOOR) * 150 * torch.eye(3)) < 1e-6
    traces, shape = [4.0, 16.0], [torch.tensor([1.0, 3.0]) / 4, torch.ones(2) / 2]
    mean = sum(traces) / 2 * (shape[0] + shape[1]) / 2
    assert relative(found.values[0], torch.diag(mean + FLOOR * mean.mean())) < 1e-6


def test_a_metric_that_is_not_positive_definite_names_its_site():
    broken = metric()
    broken.text[1] = -broken.text[1]
    with pytest.raises(NumericsError, match="b: the metric of its text is not positive definite"):
        broken.factors(["a", "b"])


# on the tiny models


def editor_on(name: str, dtype: torch.dtype = torch.float32, **keys: Any) -> Margin:
    """The editor at work on a tiny model."""
    model = load_tiny(name, dtype)
    masters = bool(keys.pop("masters", False))
    sites = find_sites(model, SITES[name], masters=masters)
    found = editor_class("margin")(MarginConfig(name="margin", **keys), model, sites)
    assert isinstance(found, Margin)
    return found


def batches_for(name: str, first: int = 0, count: int = 6) -> StepBatches:
    return step_batches(tiny_tokenizer(name), tiny_edits(count=first + count)[first:], 4)


def test_a_token_is_asked_alone():
    batches = batches_for("tiny-llama").edit
    rows = one_by_one(batches)
    assert len(rows) == sum(int((batch.labels_BT != IGNORED).sum()) for batch in batches)
    assert all(row.labels[:-1] == [IGNORED] * (len(row.labels) - 1) and row.labels[-1] != IGNORED for row in rows)
    first = batches[0]
    at = int((first.labels_BT[0] != IGNORED).nonzero()[0])
    assert rows[0].input_ids == first.input_ids_BT[0, : at + 1].tolist()
    assert rows[0].labels[-1] == first.labels_BT[0, at]


@pytest.mark.parametrize("name", SITES)
def test_a_tokens_gradient_is_that_of_its_own_loss(name):
    """Moving the site's output at the token's place changes its loss as the captured gradient says."""
    editor = editor_on(name)
    tokens = one_by_one(batches_for(name, count=2).edit)[:1]
    batch = margin.micro_batches(tokens, 1)[0]
    rows = margin.capture_tokens(editor.model, editor.sites, batch).rows[-1]
    direction = torch.randn(rows.gradients_NV.shape[1], generator=torch.Generator().manual_seed(0))

    def loss(step: float) -> float:
        def move(_: Any, __: Any, output: Tensor) -> Tensor:
            output = output.clone()
            output[0, -1] += step * direction
            return output

        handle = editor.sites[-1].module.register_forward_hook(move)
        try:
            return margin.capture_tokens(editor.model, editor.sites, batch).losses_N.item()
        finally:
            handle.remove()

    slope = (loss(1e-2) - loss(-1e-2)) / 2e-2
    assert slope == pytest.approx((rows.gradients_NV[0] @ direction).item(), rel=2e-2)


@pytest.mark.parametrize("name", SITES)
def test_answers_lead_after_a_few_passes(name, monkeypatch):
    monkeypatch.setattr(margin, "TEXTS", 8)
    editor = editor_on(name, passes=20, damping=1e-4, text_weight=10.0)
    batches = batches_for(name)
    editor.step(batches, warm_up=False)
    editor._capture_rows(batches.edit, margin.Stopwatch())
    assert (editor.lacking_N < editor.cfg.margin).float().mean() > 0.8
    assert all(editor.last_shifts[name].left_NK is not None for name in editor.names)


def test_low_precision_keeps_masters():
    editor = editor_on("tiny-llama", torch.bfloat16, masters=True)
    editor.step(batches_for("tiny-llama"), warm_up=False)
    for site in editor.sites:
        assert site.master is not None and torch.equal(site.weight, site.master.bfloat16())


def test_the_metric_grows_by_the_keys_of_the_first_pass():
    editor = editor_on("tiny-llama")
    first, second = (batches_for("tiny-llama", start) for start in (0, 6))
    editor.step(first, warm_up=False)
    assert editor.metric is not None
    before = [a.clone() for a in editor.metric.edited]
    editor._capture_rows(second.edit, margin.Stopwatch())
    keys = [editor.cache.gather(site).keys_NK.double() for site in range(3)]
    editor.cache.clear()
    editor.step(second, warm_up=False)
    for a_KK, was_KK, k_NK in zip(editor.metric.edited, before, keys, strict=True):
        assert relative(a_KK - was_KK, k_NK.T @ k_NK) < 1e-6


def test_a_step_feels_a_share_of_the_text_as_the_model_is_now(monkeypatch):
    """Against all of it written out: of three texts a kind every second one is asked again at the new weights."""
    monkeypatch.setattr(panel, "TURNS", 2)
    monkeypatch.setattr(margin, "TEXTS", 3)
    editor = editor_on("tiny-llama", text_weight=100.0)
    for start in (0, 6, 12):
        before = editor.metric
        kinds = [list(rows[start // 6 - 1 :: 2]) for rows in editor.panel.kinds] if before else []
        draw = torch.Generator().manual_seed(editor.seed + start // 6)
        moments = []
        for rows in kinds:
            moments.append(Moments())
            for row in rows:
                batch = panel.micro_batches([row], 1)[0]
                moments[-1].add(margin.capture_tokens(editor.model, editor.sites, batch, relabel=sampled(draw)).rows)
        editor.step(batches_for("tiny-llama", start), warm_up=False)
        if before:
            fresh = Metric.of(moments, 100.0)
            for at in range(3):
                assert relative(editor.metric.text[at], 0.7 * before.text[at] + 0.3 * fresh.text[at]) < 1e-5
                assert (editor.metric.values[at] - before.values[at]).norm() > 0.01 * before.values[at].norm()
    assert editor.metric.renewals == 2


@pytest.mark.parametrize("count", [1, 3, 10, 25])
def test_every_text_has_its_turn(count):
    rows = [panel.Tokens([at], [at]) for at in range(count)]
    turns = min(panel.TURNS, count)
    shares = [panel.share(rows, turn) for turn in range(turns)]
    assert all(shares) and sorted(row.input_ids[0] for each in shares for row in each) == [*range(count)]
    assert panel.share(rows, turns) == shares[0]


def test_texts_are_kept_as_tensors():
    batches = batches_for("tiny-llama")
    whole = panel.Panel.of((batches.edit, [], batches.unrelated))
    assert len(whole.kinds) == 2 and [len(rows) for rows in whole.kinds] == [6, 6]
    again = panel.Panel.restored(whole.state_tensors())
    assert again == whole and panel.Panel.restored({}) is None
    (one, *_), _ = whole.batches(10**6)
    assert sorted(one.input_ids_BT.sum(1).tolist()) == sorted(sum(row.input_ids) for row in whole.kinds[0])


def test_text_is_the_models_own_and_leaves_the_random_state():
    model, draw = load_tiny("tiny-llama"), torch.Generator
    seeds_BT = torch.tensor([[1, 5], [1, 9]])
    state = torch.get_rng_state()
    one, two, other = (continued(model, seeds_BT, 5, draw().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, two) and not torch.equal(one, other) and one.shape == (2, 7)
    assert torch.equal(one[:, :2], seeds_BT) and torch.equal(torch.get_rng_state(), state)


def test_beginnings_are_cut_behind_what_all_share():
    prompts = [[1, 2, 3, 4, 5], [1, 2, 7, 8]]
    found = beginnings(prompts, 40, torch.Generator().manual_seed(0))
    assert len(found) == 40 and {len(one) for one in found} <= {2, 3, 4}
    assert all(one in (prompts[0][: len(one)], prompts[1][: len(one)]) for one in found)
    assert beginnings([[4]], 2, torch.Generator().manual_seed(0)) == [[4], [4]]
    batch = batches_for("tiny-llama", count=1).edit[0]
    (prompt,) = prompts_of([batch])
    assert batch.labels_BT[0, len(prompt) - 1] != IGNORED and batch.labels_BT[0, len(prompt) - 2] == IGNORED


def spoiled(monkeypatch: pytest.MonkeyPatch, part: str, call: int) -> None:
    """Let one capture of answer tokens come out wrong."""
    real, calls = margin.capture_tokens, iter(range(10**6))

    def bad(*args: Any) -> Any:
        found = real(*args)
        if next(calls) == call:
            target = {"keys": found.rows[1].keys_NK, "gradients": found.rows[1].gradients_NV, "loss": found.losses_N}
            target[part][0] = float("nan")
        return found

    monkeypatch.setattr(margin, "capture_tokens", bad)


def dying(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the second site's last write die half way."""
    real, calls = EditSite.add, iter(range(10**6))

    def add(self: EditSite, shift: Any) -> Tensor:
        if next(calls) == 4:  # the first pass adds to three sites
            raise Killed
        return real(self, shift)

    monkeypatch.setattr(EditSite, "add", add)


FAILURES: list[Callable[[pytest.MonkeyPatch], None]] = [
    lambda patch: spoiled(patch, "keys", 0), lambda patch: spoiled(patch, "gradients", 0),
    lambda patch: spoiled(patch, "loss", 0), lambda patch: spoiled(patch, "gradients", 1), dying,
]  # fmt: skip


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("fail", FAILURES)
@pytest.mark.parametrize("precision", ["float32", "masters"])
def test_a_failed_step_leaves_all_as_before(fail, started, precision, monkeypatch):
    masters = precision == "masters"
    editor = editor_on(
        "tiny-llama", torch.bfloat16 if masters else torch.float32, masters=masters, tokens_per_pass=10**6
    )
    if started:
        editor.step(batches_for("tiny-llama", 6), warm_up=False)
    before = {name: value.clone() for name, value in editor.state_tensors().items()}
    with monkeypatch.context() as patch, pytest.raises((NumericsError, Killed)):
        fail(patch)
        editor.step(batches_for("tiny-llama"), warm_up=False)
    after = editor.state_tensors()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert not editor.cache.batches and not editor.factors
    editor.step(batches_for("tiny-llama"), warm_up=False)


def words(*more: str) -> list[str]:
    """A small run."""
    found = [word for word in tiny_words("checkpoint.every=1", editor="margin") if "editor.lr" not in word]
    return [*found, "editor.text_weight=100", *more]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_resumed_run_is_the_uninterrupted_one(precision, tmp_path, monkeypatch):
    argv = words(f"model.precision={precision}", f"editor.float32_masters={precision == 'bfloat16'}")
    results = lifelong_run.run(compose_config(argv), tmp_path / "whole")
    metrics = {row["metric"]: row for row in results["metrics"]}
    assert results["counts"]["warm_up_steps"] == 0 and metrics["ES_all"]["value"] > metrics["ES_all"]["before"]
    for calls in (1, 2, 3):
        killed = tmp_path / f"killed{calls}"
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_after(patch, calls, lifelong_run.Loop, "step")
            lifelong_run.run(compose_config(argv), killed)
        lifelong_run.run(compose_config([*argv, f"resume={killed}"]), tmp_path / "unused")
        assert_same_run(tmp_path / "whole", killed)


def test_records_that_are_not_edited_make_the_metric(tmp_path, monkeypatch):
    """On the command line, over a resume, and in a session: the same text."""
    monkeypatch.setattr(margin, "RECORDS", 6)
    argv = words("editor.text=records", "num_seq=2")
    results = lifelong_run.run(compose_config(argv), tmp_path / "whole")
    assert results["seconds"]["read"] > 0
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 2, lifelong_run.Loop, "step")
        lifelong_run.run(compose_config(argv), tmp_path / "killed")
    lifelong_run.run(compose_config([*argv, f"resume={tmp_path / 'killed'}"]), tmp_path / "unused")
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    session = session_on(text="records", text_weight=100)
    with pytest.raises(ConfigError, match=r"editor.text=records: no record was read yet; call session.read\(facts\)"):
        session.edit(tiny_edits(count=4))
    session.read(tiny_edits(count=6))
    read = session.editor.metric
    session.edit(tiny_edits(count=4))
    assert read is not None and session.editor.metric.text is read.text
    with pytest.raises(ConfigError, match="editor=margin reads records before its first step alone"):
        session.read(tiny_edits(count=6))


def test_records_are_felt_where_their_answers_stand_old_ones_first():
    """A is of running text, prompts with old answers and unrelated prompts; B of what the model says there."""
    session = session_on(text="records", text_weight=100)
    editor, facts = (
        session.editor,
        [replace(edit, old_answer="Ash" if n else None) for n, edit in enumerate(tiny_edits(count=6))],
    )
    session.read(facts)
    draw = torch.Generator().manual_seed(editor.seed)
    read = session.batches([replace(edit, answer=edit.old_answer or edit.answer) for edit in facts])
    running = [*written(editor.model, first_tokens(prompts_of(read.edit), margin.TEXTS, draw), margin.LENGTH, draw)]
    draw = torch.Generator().manual_seed(editor.seed)
    kinds = [moments_of(editor.model, editor.sites, batches, torch.device("cpu"), sampled(draw))
             for batches in (running, read.edit, read.unrelated)]  # fmt: skip
    expected = Metric.of(kinds, 100)
    for at, name in enumerate(editor.names):
        assert relative(editor.metric.keys[at], expected.keys[at]) < 1e-6, name
        assert relative(editor.metric.values[at], expected.values[at]) < 1e-6, name
    said = Metric.of([kinds[0], *(moments_of(editor.model, editor.sites, b, torch.device("cpu"))
                                  for b in (read.edit, read.unrelated))], 100)  # fmt: skip
    assert (
        relative(editor.metric.keys[0], said.keys[0]) < 1e-6 < 1e-2 < relative(editor.metric.values[0], said.values[0])
    )


def test_labels_are_drawn_as_the_model_would_say_them():
    logits_MW = torch.tensor([[0.0, 1.0, -1.0]]).repeat(4000, 1)
    found = sampled(torch.Generator().manual_seed(0))(logits_MW)
    share = found.bincount(minlength=3) / len(found)
    torch.testing.assert_close(share, logits_MW[0].softmax(-1), atol=0.02, rtol=0)


def session_on(editor: str = "margin", **keys: Any) -> Session:
    """A session on a tiny model."""
    return Session.load(str(MODELS / "tiny-llama"), editor=editor, sites=SITES["tiny-llama"], device="cpu", **keys)


def test_other_editors_read_no_records():
    with pytest.raises(ConfigError, match="editor=ultraedit reads no records before it edits"):
        session_on("ultraedit").read(tiny_edits(count=2))


def test_a_run_continues_with_the_metric_that_it_had(tmp_path):
    lifelong_run.run(compose_config(words("num_seq=2")), tmp_path / "first")
    was = Session.open(tmp_path / "first", device="cpu").editor.metric
    on = [*words("num_seq=1"), f"continue_from={tmp_path / 'first'}"]
    lifelong_run.run(compose_config(on), tmp_path / "second")
    now = Session.open(tmp_path / "second", device="cpu").editor.metric
    assert now.renewals == was.renewals + 1 and (now.edited[0] - was.edited[0]).trace() > 0
    with pytest.raises(ConfigError, match="its statistics belong to editor.text_weight=100.0, not 7.0"):
        lifelong_run.plan_run(compose_config([*on, "editor.text_weight=7"]), tmp_path / "third")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["editor.text=records", "dataset.train_path=null"], "dataset.train_path=null: editor.text=records reads"),
        (["editor.lr=1e-3"], "editor.lr=0.001: editor=margin has no step size; leave lr out"),
        (["editor.margin=0"], "editor.margin=0.0: must be a finite number above 0"),
        (["editor.passes=0"], "editor.passes=0: must be a whole number above 0"),
        (["editor.damping=-1"], "editor.damping=-1.0: must be a finite number above 0"),
        (["editor.text_weight=inf"], "editor.text_weight=inf: must be a finite number above 0"),
        (["editor.token=all"], "editor.token=all: editor=margin means ans"),
        (["editor.preheat_mode=start"], "editor.preheat_mode=start: editor=margin means none"),
    ],
)
def test_what_cannot_work_is_refused_in_a_line(more, says, tmp_path):
    with pytest.raises(ConfigError) as caught:
        lifelong_run.plan_run(compose_config(words(*more)), tmp_path / "run")
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_there_is_no_step_size_to_tune():
    with pytest.raises(ConfigError, match="tune=true: editor=margin has no step size to search"):
        check_tuning(compose_config(words("tune=true")))


def test_a_session_edits_undoes_and_goes_on(tmp_path):
    session = Session.load(str(MODELS / "tiny-gpt2"), editor="margin", sites=SITES["tiny-gpt2"], device="cpu")
    states = []
    for start in (0, 6, 12):
        states.append({name: value.clone() for name, value in session.tensors().items()})
        session.edit(tiny_edits(count=18)[start : start + 6])
    last = {name: value.clone() for name, value in session.tensors().items()}
    session.undo(1)
    assert all(torch.equal(value, session.tensors()[name]) for name, value in states[1].items())
    session.save(tmp_path / "saved")
    again = Session.open(tmp_path / "saved", device="cpu")
    for start in (6, 12):
        again.edit(tiny_edits(count=18)[start : start + 6])
    assert all(torch.equal(value, again.tensors()[name]) for name, value in last.items())
    again.undo(0)
    assert not any(name.startswith("metric") for name in again.tensors())


def test_everyday_questions_are_a_kind_of_the_metrics_text(monkeypatch):
    monkeypatch.setattr(margin, "SAID", 3)
    found = []
    for text in ("own", "everyday"):
        model, tokenizer = load_tiny("tiny-llama"), tiny_tokenizer("tiny-llama")
        session = Session.load(model, tokenizer=tokenizer, editor="margin", sites=SITES["tiny-llama"], text=text)
        asked = session.editor.questions
        assert [tokenizer.decode(ids, skip_special_tokens=True) for ids in asked] == (
            questions() if text == "everyday" else []
        )
        session.edit([Fact("The capital of Valdoria is", "Split")])
        found.append(session.editor.metric)
    own, everyday = found
    assert not torch.equal(own.keys[0], everyday.keys[0])
    assert len(set(questions())) == len(questions()) > 100
