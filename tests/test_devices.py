"""Runs on pretended GPUs (pretended.py): a tensor left on the wrong device fails here as it would on a real one."""

from __future__ import annotations

import functools
import json
import pickle
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import fields
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pytest
import torch
from accelerate import dispatch_model
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from config.check import ConfigError, RunError
from config.compose import compose_config
from config.editors import FinetuneConfig
from data.batches import StepBatches, passes
from editor import cache, learned, margin, ranks
from editor.frozen import FrozenLayers
from editor.ranks import Here, Ranks
from editor.registry import editor_class, found
from editor.ridge import Shift
from editor.sites import EditSite
from editor.stopwatch import Stopwatch
from glue_eval.scoring import score
from lifelong import run as lifelong_run
from lifelong import session as lifelong_session
from lifelong.gloo import pickled
from lifelong.loop import Loop
from lifelong.resume import check_same
from lifelong.scorer import Reference
from lifelong.session import Session
from model import load_model
from tests.pretended import Mismatch, Pretended, pretend
from tests.test_glue_scoring import questions
from tests.tiny import MODELS, SITES, load_tiny, tiny_edits, tiny_tokenizer, tiny_words

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
SMALL = ["num_seq=2", "num_seq_zsre=1", "dataset.n_edits=4", "dataset.batch_size=2", "model.precision=float32",
         "eval.before=false", "eval.generate=true", "eval.sample=4", "eval.max_new_tokens=3"]  # fmt: skip
LEARNED = ["editor.rank=8", "editor.n_blocks=1", "editor.meta_lr=1e-3"]
PLACES = [("cuda:0", "cuda:0"), ("cuda:0", "cpu"), ("cpu", "cuda:0"), ("cuda:0", "cuda:1"), ("split", "cuda:0")]


@pytest.fixture(autouse=True)
def short_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """editor=margin writes little text of its own."""
    monkeypatch.setattr(margin, "TEXTS", 4)
    monkeypatch.setattr(margin, "LENGTH", 6)


def words(editor: str, *more: str, model: str = "tiny-llama") -> list[str]:
    """Overrides of a small run of an editor, with those keys alone that it has."""
    kind = editor_class(editor)
    has_lr = kind.scaled and "lr" in {field.name for field in fields(kind.config_class)}
    given = [word for word in tiny_words(editor=editor, model=model) if has_lr or not word.startswith("editor.lr")]
    short = ["editor.epochs=3"] if issubclass(kind.config_class, FinetuneConfig) else LEARNED if kind.trains else []
    return [*given, *SMALL, *short, *more]


def run(run_dir: Path, argv: list[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A run's results and the lines of its metrics."""
    results = lifelong_run.run(compose_config(argv), run_dir)
    return results, [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@functools.cache
def on_cpu(editor: str, model: str = "tiny-llama") -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The same run where no device is pretended."""
    with TemporaryDirectory() as folder:
        return run(Path(folder), words(editor, model=model))


def assert_same(
    found: tuple[dict[str, Any], list[dict[str, Any]]], wanted: tuple[dict[str, Any], list[dict[str, Any]]]
) -> None:
    """The same scores, and the same shifts up to the rounding of passes that hold more."""
    (results, lines), (expected, expected_lines) = found, wanted
    assert {row["metric"]: row["value"] for row in results["metrics"]} == pytest.approx(
        {row["metric"]: row["value"] for row in expected["metrics"]}, rel=1e-4, abs=1e-7
    )
    steps, wanted_steps = ([line for line in each if "sites" in line] for each in (lines, expected_lines))
    assert len(steps) == len(wanted_steps) > 0
    for step, other in zip(steps, wanted_steps, strict=True):
        for site, record in other["sites"].items():
            assert step["sites"][site]["shift_norm"] == pytest.approx(record["shift_norm"], rel=1e-3)


def split(model: PreTrainedModel, first: int) -> PreTrainedModel:
    """The model as device_map=auto spreads it over two GPUs: layers from `first` on, and what follows, on cuda:1."""
    base: Any = model.base_model
    prefix = next(name for name, module in model.named_modules() if module is base)
    places: dict[str, str] = {}
    behind = 0
    for name, child in base.named_children():
        if isinstance(child, nn.ModuleList):
            places |= {f"{prefix}.{name}.{number}": f"cuda:{int(number >= first)}" for number in range(len(child))}
            behind = 1
        else:
            places[f"{prefix}.{name}"] = f"cuda:{behind}"
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    places |= {name: f"cuda:{int(not tied)}" for name, child in model.named_children() if child is not base}
    return dispatch_model(model, places, skip_keys=model._skip_keys_device_placement)


def on_gpus(
    run_dir: Path, editor: str, place: tuple[str, str], *more: str, model: str = "tiny-llama"
) -> tuple[tuple[dict[str, Any], list[dict[str, Any]]], Pretended]:
    """A run with model and editor on pretended devices; a split model is what device_map=auto gives on two GPUs."""
    loads = {"load_model": lambda cfg, device: split(load_model(cfg, CPU), 2)} if place[0] == "split" else {}
    where = [f"model_device={place[0].replace('split', 'cuda:0')}", f"editor_device={place[1]}"]
    with patch.multiple(lifelong_session, **loads) if loads else nullcontext(), pretend() as gpus:
        return run(run_dir, words(editor, *where, *more, model=model)), gpus


@pytest.mark.parametrize("place", PLACES, ids="/".join)
@pytest.mark.parametrize("editor", sorted(found()))
def test_every_editor_gives_the_cpus_scores_wherever_it_runs(
    editor: str, place: tuple[str, str], tmp_path: Path
) -> None:
    there, gpus = on_gpus(tmp_path, editor, place)
    assert_same(there, on_cpu(editor))
    works_there = editor_class(editor).writes or place[0] != "cpu"  # one that writes nothing solves nothing either
    assert bool(gpus.operators) is works_there


class Shared(Ranks):
    """Every second result as another rank sends it: through the host's memory."""

    def deal(self, here: Here, work: Callable[[Here, Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        for number, result in enumerate(super().deal(here, work, items)):
            yield pickle.loads(pickled(result)) if number % 2 else result


@pytest.mark.parametrize("editor", ["malmen", "margin", "stableedit"])
def test_what_other_ranks_made_joins_what_is_on_the_gpu(
    editor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def share(session: Session) -> None:
        session.ranks = session.editor.ranks = Shared()

    monkeypatch.setattr(lifelong_run.ranks, "share", share)
    there, _ = on_gpus(tmp_path, editor, ("cuda:0", "cuda:0"), "editor.tokens_per_pass=1", "eval.tokens_per_batch=32")
    assert_same(there, on_cpu(editor))


def test_the_divergence_from_before_is_measured_on_a_gpu() -> None:
    with pretend():
        logits_MW, reference = torch.randn(3, 5).to(CUDA), Reference({})
        reference.look("LS/0", logits_MW)
        assert reference.log_probs["LS/0"].device == CPU, "a GPU's memory is not for keeping"
        assert reference.divergence("LS/0", logits_MW) == pytest.approx(0, abs=1e-6)


def test_states_below_the_sites_are_kept_on_a_gpu_too() -> None:
    with pretend():
        session, _ = on_gpu("stableedit", 4)
        assert isinstance(session.inputs, FrozenLayers), "a state on another device counts as a model like no other"


@pytest.mark.parametrize("place", PLACES, ids="/".join)
@pytest.mark.parametrize("model", ["tiny-gpt2", "tiny-gptj"])
def test_other_architectures_too(model: str, place: tuple[str, str], tmp_path: Path) -> None:
    assert_same(on_gpus(tmp_path, "stableedit", place, model=model)[0], on_cpu("stableedit", model))


@pytest.mark.parametrize("first", [1, 3])
def test_downstream_rows_of_a_split_model_end_early(first: int) -> None:
    model, tokenizer = load_tiny("tiny-llama"), tiny_tokenizer("tiny-llama")
    asked = questions("mmlu", tokenizer, model.config)
    plain = [one.new_tokens for one in score(model, asked, 8)]
    some = [token for row in plain for token in row[:-1] if any(token not in other[:-1] for other in plain)]
    model.generation_config.eos_token_id = some[0]
    expected = score(model, asked, 8)
    assert len({len(one.new_tokens) for one in expected}) > 1, "some rows must end before others"
    with pretend():
        spread = split(model, first)
        for found, wanted in zip(score(spread, asked, 8), expected, strict=True):
            assert found.new_tokens == wanted.new_tokens
            assert found.log_probs == pytest.approx(wanted.log_probs, rel=1e-4)


def test_what_a_run_on_a_gpu_leaves_goes_on_there(tmp_path: Path) -> None:
    """Edit, ask, undo, save and open: what the next step depends on is put back where it was."""
    keys: dict[str, Any] = {"editor": "stableedit", "sites": SITES["tiny-llama"], "lr": 3e-3, "alpha": 10.0}
    cuts = [tiny_edits(count=8)[start : start + 4] for start in (0, 4)]
    with pretend():
        session = Session.load(str(MODELS / "tiny-llama"), device="cuda:0", format="raw", **keys)
        session.edit(cuts[0])
        session.save(tmp_path / "saved")
        said, step = session.ask(cuts[0][0].prompt), session.edit(cuts[1])
        session.undo()
        assert session.ask(cuts[0][0].prompt) == said
        other = Session.open(tmp_path / "saved", device="cuda:0")
        assert other.model.device == CUDA
        assert other.edit(cuts[1]).sites == step.sites


def test_a_model_that_does_not_fit_the_devices_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg, real = compose_config(words("stableedit")).model, AutoModelForCausalLM.from_pretrained

    def offloaded(*args: Any, **keys: Any) -> Any:
        model, said = real(*args, **keys | {"device_map": None})
        model.get_submodule("model.layers.0").to("meta")
        return model, said

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", offloaded)
    cfg.device_map = "auto"
    with pytest.raises(ConfigError, match=r"device_map=auto: model\.layers\.0\.self.* more do not fit the devices"):
        load_model(cfg, CPU)


REFUSED = {
    "a product": lambda here, there: here @ there,
    "a sum": lambda here, there: here + there,
    "a row written": lambda here, there: here[0].copy_(there[0]).add_(there[1]),
    "a part picked by indices of elsewhere": lambda here, there: there[here.long()],
    "rows picked by index_select": lambda here, there: here.index_select(0, there[0].long()),
    "a number added in place on the host": lambda here, there: there.new_zeros(()).add_(here[0, 0]),
    "rows joined": lambda here, there: torch.cat([here, there]),
    "a loss": lambda here, there: torch.nn.functional.cross_entropy(here, there[0].long()),
    "a lookup": lambda here, there: torch.nn.functional.embedding(there.long(), here),
}


@pytest.mark.parametrize("other", ["cpu", "cuda:1"])
@pytest.mark.parametrize("act", REFUSED.values(), ids=REFUSED)
def test_a_pretended_gpu_refuses_what_a_gpu_refuses(act: Callable[[Tensor, Tensor], Tensor], other: str) -> None:
    with pretend():
        here, there = torch.zeros(2, 2, device="cuda:0"), torch.zeros(2, 2).to(other)
        act(here, here.clone())
        with pytest.raises(Mismatch):
            act(here, there)
        with pytest.raises(TypeError, match="CUDA tensor to numpy"):
            here.numpy()


def test_a_pretended_gpu_takes_what_a_gpu_takes_and_counts() -> None:
    with pretend() as gpus:
        here, number = torch.ones(4, 4, device="cuda"), torch.tensor(2.0)
        with gpus.budget() as spent:
            made = (here * number).where(here > 0, number)[torch.tensor([0, 1])]  # indices of the host are copied
            assert made.device == CUDA and not spent.operators, "counted once the block is left"
            assert made.sum().item() == 16
        assert spent.waits.total() == 2 and {"aten::mul", "aten::where", "aten::index"} <= spent.operators.keys()
        with gpus.budget() as spent:
            here.to(CPU), number.to("cuda:1", non_blocking=True)
        assert spent.bytes == 64 + 4 and spent.waits.total() == 1
        row = torch.ones(3, requires_grad=True)
        (row.to("cuda:1") * 2).sum().backward()
        assert row.grad is not None and row.grad.device == CPU


def thin_shift(site: EditSite, rows: int, device: str) -> Shift:
    """A shift of a site as the product of random factors."""
    draw = torch.Generator().manual_seed(0)
    factors = (torch.randn(rows, size, generator=draw).to(device) for size in site.shape)
    return Shift(*factors)


@pytest.mark.parametrize("masters", [False, True])
def test_a_7b_site_is_written_in_few_operators(masters: bool) -> None:
    module = nn.Linear(14336, 4096, bias=False, dtype=torch.bfloat16)
    with pretend() as gpus:
        site = EditSite("down_proj", module.to("cuda:0").requires_grad_(False), masters=masters)
        shift = thin_shift(site, 4, "cuda:0")
        with gpus.budget() as spent:
            site.add(shift)
    assert spent.operators.total() <= 20 and not spent.waits, spent


@pytest.mark.parametrize("solve", ["cpu", "cuda:1"])
def test_factors_of_a_shift_move_not_the_matrix(solve: str) -> None:
    module = nn.Linear(1024, 512, bias=False).requires_grad_(False)
    before, rows = module.weight.clone(), 20
    plain = EditSite("plain", nn.Linear(1024, 512, bias=False))
    plain.weight.copy_(before)
    with pretend() as gpus:
        site = EditSite("down_proj", module.to("cuda:0"))
        shift, moved = thin_shift(site, rows, solve), gpus.moved.total()
        site.add(shift)
        assert gpus.moved.total() - moved == 4 * rows * (1024 + 512), "a matrix would be 17 times as much"
    plain.add(thin_shift(plain, rows, "cpu"))
    assert torch.allclose(site.weight, plain.weight, rtol=1e-5, atol=1e-6)


def on_gpu(editor: str, edits: int, *more: str) -> tuple[Session, StepBatches]:
    """A session on a pretended GPU that has had a step, and the batches of its next one."""
    cfg = compose_config(words(editor, "model_device=cuda:0", "dataset.batch_size=10", *more))
    session = lifelong_session.started(cfg, None, None)
    records = tiny_edits(count=edits)
    session.step(records)
    return session, session.batches(records)


def test_phases_are_timed_on_the_gpus_clock():
    """Without a wait until they are asked for, then with one; elsewhere by the host's."""
    with pretend() as gpus:
        watch = Stopwatch(torch.device("cuda", 0))
        with gpus.budget() as spent:
            for phase in ("capture", "ridge", "capture"):
                with watch(phase):
                    time.sleep(0.01)
        assert not spent.waits
        with gpus.budget() as spent:
            found = dict(watch.seconds)
        assert spent.waits.total() == 1 and found["capture"] >= 0.02 > 0.015 > found["ridge"] >= 0.01
        watch.add({"ridge": 1.0})
        assert watch.seconds["ridge"] == found["ridge"] + 1 and watch.seconds["capture"] == found["capture"]
    watch = Stopwatch(torch.device("cpu"))
    with watch("ridge"):
        time.sleep(0.01)
    assert watch.seconds["ridge"] >= 0.01


@pytest.mark.parametrize("editor", ["stableedit", "ultraedit"])
def test_a_step_of_a_ridge_editor_makes_the_host_wait_seldom(
    editor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "save_file", lambda *_: pytest.fail("a row was written to a file"))
    with pretend() as gpus:
        session, batches = on_gpu(editor, 40, f"editor.cache_dir={tmp_path}")
        with gpus.budget() as spent:
            session.editor.step(batches, warm_up=False)
    whitens = any(statistics.whitens for statistics in session.editor.statistics.values())
    assert whitens is (editor != "ultraedit"), "a decomposition waits too"
    assert spent.waits.total() <= 12, dict(spent.waits)


@pytest.mark.parametrize(("device", "count"), [("cuda:0", 1), ("cpu", 5)])
def test_a_gpu_captures_a_hundred_edits_in_one_pass(device: str, count: int) -> None:
    edits = [*tiny_edits(count=20)] * 5
    with pretend():
        session = lifelong_session.started(compose_config(words("ultraedit", f"model_device={device}")), None, None)
        session.cfg.dataset.batch_size = 10
        assert len([*passes(session.batches(edits).edit, session.editor.tokens_per_pass)]) == count


def test_a_run_goes_on_with_another_gpu(tmp_path: Path) -> None:
    """Its checkpoint is of a kind of device; the CPU is another kind."""
    argv = words("stableedit", "checkpoint.every=1", "editor_device=cpu", f"resume={tmp_path}")

    real = Loop._between_steps

    def stopped(loop: Loop, done: int, **more: Any) -> None:
        real(loop, done, **more)
        if done == 2:
            raise KeyboardInterrupt

    with pretend():
        begin = [*argv[:-1], "model_device=cuda:0"]
        with patch.object(Loop, "_between_steps", stopped), pytest.raises(KeyboardInterrupt):
            run(tmp_path, begin)
        with pytest.raises(ConfigError, match="resume: .*: model_device was cuda:0, is cpu$"):
            run(tmp_path, [*argv, "model_device=cpu"])
        found = run(tmp_path, [*argv, "model_device=cuda:1"])
    assert_same(found, on_cpu("stableedit"))


def test_a_gpu_without_memory_enough_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity")

    monkeypatch.setattr("editor.ranks.capture_together", full)
    with pytest.raises(
        RunError, match=r"^out of memory \(CUDA out of memory\): lower editor.tokens_per_pass \(auto is 40"
    ):
        on_gpus(tmp_path, "stableedit", PLACES[0])


def full_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, calls: Sequence[int]) -> Iterator[int]:
    """A GPU whose memory is not enough for these calls of a function; what counts the calls."""
    real, number = getattr(owner, name), count()

    def work(*args: Any, **more: Any) -> Any:
        if next(number) in calls:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(*args, **more)

    monkeypatch.setattr(owner, name, work)
    return number


def test_a_run_whose_memory_was_not_enough_goes_on_with_smaller_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_at(monkeypatch, ranks, "capture_together", [2])
    argv = words("stableedit", "checkpoint.every=50", "model_device=cuda:0", "editor_device=cuda:0")
    with pretend():
        with pytest.raises(RunError, match=rf"with a lower one resume={tmp_path} goes on from the last state"):
            run(tmp_path, argv)
        assert len([*tmp_path.glob("checkpoints/*/state.json")]) == 1, "every=50 would have saved none"
        captured = full_at(monkeypatch, ranks, "capture_together", [])
        found = run(tmp_path, [*argv, f"resume={tmp_path}", "editor.tokens_per_pass=64"])
    assert 1 <= next(captured) <= 3, "passes of the last step alone"
    assert_same(found, on_cpu("stableedit"))


def test_a_state_of_which_half_is_written_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full_at(monkeypatch, EditSite, "add", [4])
    with pytest.raises(RunError, match="out of memory"):
        on_gpus(tmp_path, "stableedit", PLACES[0], "checkpoint.every=50")
    assert not [*tmp_path.glob("checkpoints/*/state.json")]


def test_training_that_runs_out_of_memory_leaves_weights_and_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_at(monkeypatch, learned, "losses_of", [1])
    argv = words("malmen", "checkpoint.every=50", "model_device=cuda:0")
    with pretend():
        with pytest.raises(RunError, match="out of memory"):
            run(tmp_path, argv)
        (path,) = tmp_path.glob("checkpoints/*/state.safetensors")
        saved, base = load_file(path), load_tiny("tiny-llama").state_dict()
        assert all(torch.equal(saved[f"weight/{site}"], base[f"{site}.weight"]) for site in SITES["tiny-llama"])
        found = run(tmp_path, [*argv, f"resume={tmp_path}"])
    assert_same(found, on_cpu("malmen"))


def test_auto_is_the_number_that_it_means_and_a_gpu_any_gpu() -> None:
    def config(device: str, tokens: int | str, solve: str = "auto") -> dict[str, Any]:
        return {"model_device": device, "editor_device": solve, "editor": {"tokens_per_pass": tokens}}

    def goes_on(then: dict[str, Any], now: dict[str, Any]) -> bool:
        try:
            check_same({"config": then, "files": {}}, now, {})
        except ConfigError:
            return False
        return True

    assert goes_on(config("cpu", 320), config("cpu", "auto"))
    assert goes_on(config("cuda:1", 4096, "cuda:0"), config("cuda:0", "auto", "auto"))
    assert not goes_on(config("cpu", 321), config("cpu", "auto"))
    assert goes_on(config("cuda:0", "auto"), config("cuda:0", 512)), "its memory was not enough"
    assert not goes_on(config("cuda:0", "auto"), config("cpu", "auto"))
    assert not goes_on(config("cuda:0", "auto"), config("cuda:0", "auto", "cpu"))
    with pretend():
        assert goes_on(config("cuda:1", "auto"), config("auto", "auto"))
