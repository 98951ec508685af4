"""editor/frozen.py in memory, on unless said: the same bits whatever is kept, and doing without where it must."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from transformers import MixtralConfig, MixtralForCausalLM, PreTrainedModel

from config.compose import compose_config
from data.batches import Tokens, pad, step_batches
from editor.base import Editor
from editor.capture import tokens_of
from editor.frozen import FrozenLayers, frozen_inputs, look_ahead
from editor.states import StateMemory
from lifelong import run as lifelong_run
from lifelong.session import Session
from tests.pretended import pretend
from tests.test_devices import on_gpu
from tests.test_frozen import SIZES, UPPER, build, logits, lower_calls
from tests.test_resume import Killed, assert_same_run, kill_after, last_state, run
from tests.tiny import MODELS, SITES, load_tiny, tiny_batch, tiny_edits, tiny_tokenizer, tiny_words

SMALL = 4000 / 2**30  # room for a few of the tiny models' prompts


def kept(model: PreTrainedModel, gib: float = 2.0, sites: list[str] = UPPER) -> Any:
    """As a run does, with its keys."""
    cfg = compose_config(tiny_words()).model
    cfg.edit_modules, cfg.frozen_memory_gib = sites, gib
    return frozen_inputs(model, cfg)


def states(inputs: FrozenLayers, rows: list[list[int]]) -> list[torch.Tensor]:
    """What the layers below make of sequences in one call, with nothing kept from before."""
    inputs.kept, inputs._ahead = StateMemory(0), {}
    batch = pad([Tokens(ids, [0] * len(ids)) for ids in rows])
    with inputs(inputs.decoder, batch) as given:
        return [found_TD[: len(ids)].clone() for found_TD, ids in zip(given["inputs_embeds"], rows, strict=True)]


@pytest.mark.parametrize("name", ["llama", "qwen2", "mistral"])
def test_a_prompt_is_computed_once_and_gives_the_whole_models_logits(name):
    model, batch = build(name), tiny_batch("tiny-llama")
    expected = logits(model, batch)
    inputs = kept(model)
    seen = lower_calls(model)
    computed, read = logits(model, batch, inputs), logits(model, batch, inputs)
    assert sum(seen) == len(batch.input_ids_BT)
    assert_close(computed, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(read, computed)


def test_a_prompts_states_depend_on_the_prompt_alone():
    inputs, draw = kept(build("llama")), random.Random(0)
    rows = [[draw.randrange(1, 700) for _ in range(draw.randrange(1, 40))] for _ in range(60)]
    alone = [states(inputs, [ids])[0] for ids in rows]
    for _ in range(3):
        some = draw.sample(range(len(rows)), 37)
        for index, found in zip(some, states(inputs, [rows[i] for i in some]), strict=True):
            assert torch.equal(found, alone[index])


def test_nothing_is_kept_beyond_the_bound_and_the_oldest_stay():
    memory = StateMemory(100)
    memory.add([[1], [2, 3], [4]], [torch.ones(1, 10), torch.ones(2, 10), torch.full((1, 10), 4.0)])
    memory.add([[1], [5]], [torch.zeros(1, 10), torch.zeros(1, 10)])
    assert torch.equal(memory.get([1]), torch.ones(1, 10)) and torch.equal(memory.get([4]), torch.full((1, 10), 4.0))
    assert memory.get([2, 3]) is None and memory.get([5]) is None and memory.get([1, 4]) is None


def test_a_run_has_the_same_bits_whatever_the_bound_lets_it_keep(tmp_path):
    for gib in (2, SMALL):
        argv = tiny_words("checkpoint.every=1", f"model.frozen_memory_gib={gib}")
        run(tmp_path / str(gib), argv)
    assert_same_run(tmp_path / "2", tmp_path / str(SMALL))
    run(tmp_path / "off", tiny_words("checkpoint.every=1", "model.frozen_memory_gib=0"))
    for name, tensor in last_state(tmp_path / "off").items():
        assert_close(last_state(tmp_path / "2")[name], tensor, rtol=1e-2, atol=1e-4)


def test_a_resumed_run_has_the_same_bits(tmp_path, monkeypatch):
    argv = tiny_words("checkpoint.every=1", "eval.every=1", "eval.sample=6")
    run(tmp_path / "whole", argv)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 4, lifelong_run.Loop, "step")
        run(tmp_path / "killed", argv)
    seen = []
    real = FrozenLayers._computed
    monkeypatch.setattr(FrozenLayers, "_computed", lambda self, rows: seen.extend(rows) or real(self, rows))
    run(tmp_path / "again", argv, f"resume={tmp_path / 'killed'}")
    assert seen, "what the killed run had kept is computed anew"
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_what_was_scored_is_not_computed_again_to_be_written_or_scored():
    keys: dict[str, Any] = {"sites": SITES["tiny-llama"], "format": "raw", "lr": 1.0}
    edits, found = tiny_edits(count=8), list[Any]()
    for gib in (0, 2):
        session = Session.load(str(MODELS / "tiny-llama"), editor="stableedit", frozen_memory_gib=gib, **keys)
        scores = [session.score(edits)]
        seen = lower_calls(session.model)
        session.edit(edits)
        found.append([*scores, session.score(edits)])
        assert bool(seen) is (gib == 0)
    assert found[0] == found[1] and found[0][0] != found[0][1]


def test_layers_that_somebody_wrote_into_are_noticed():
    model, batch = build("llama"), tiny_batch("tiny-llama")
    inputs = kept(model)
    logits(model, batch, inputs)
    model.model.layers[0].mlp.down_proj.weight.mul_(-1)
    assert_close(logits(model, batch, inputs), logits(model, batch), rtol=1e-5, atol=1e-5)


def test_full_groups_are_made_of_what_comes_next():
    model = build("llama")
    batches = step_batches(tiny_tokenizer("tiny-llama"), tiny_edits(count=12), 2).edit
    counts = {}
    for ahead in (False, True):
        inputs, passes = kept(model), []
        handle = model.model.embed_tokens.register_forward_hook(
            lambda _, given, __, to=passes: to.append(given[0].numel())
        )
        if ahead:
            look_ahead(inputs, batches)
        for batch in batches:
            logits(model, batch, inputs)
        handle.remove()
        counts[ahead] = sum(passes)
    assert counts[True] < 0.7 * counts[False]


def test_drawing_goes_on_as_if_nothing_had_been_tried():
    model = build("llama")
    before = torch.get_rng_state()
    kept(model)
    assert torch.equal(torch.get_rng_state(), before)


def mixed() -> PreTrainedModel:
    """A model of several kinds of layers."""
    kinds = ["full_attention", "full_attention", "sliding_attention", "sliding_attention"]
    return build("qwen2", use_sliding_window=True, sliding_window=4, layer_types=kinds)


def spread() -> PreTrainedModel:
    model = build("llama")
    model.hf_device_map = {"model.embed_tokens": 0, "model.layers.0": 0, "model.layers.1": 1}
    return model


def experts() -> PreTrainedModel:
    torch.manual_seed(0)
    return MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=4)).eval().requires_grad_(False)


@pytest.mark.parametrize("make", [mixed, spread, experts])
def test_it_does_without_where_it_must(make):
    assert kept(make(), sites=["model.layers.2.self_attn.o_proj"]) is tokens_of


@pytest.mark.parametrize(("model", "sites"), [("tiny-gpt2", None), ("tiny-gptj", None), ("tiny-llama", [0, 2])])
def test_it_does_without_where_nothing_can_be_kept(model, sites):
    names = SITES[model] if sites is None else [f"model.layers.{layer}.mlp.down_proj" for layer in sites]
    assert kept(load_tiny(model), sites=names) is tokens_of


@pytest.mark.parametrize("good", [0, 1])
def test_groups_are_those_in_which_rows_do_not_depend_on_others(good, monkeypatch):
    """A machine whose products depend on their size, and one whose products depend on a row's place."""
    real = FrozenLayers._through

    def rounded(self: FrozenLayers, layers: Any, ids_RT: torch.Tensor) -> torch.Tensor:
        found_RTD = real(self, layers, ids_RT)
        if good:
            return found_RTD * (1 + len(ids_RT) * 2**-20)
        return found_RTD * (1 + torch.arange(len(ids_RT))[:, None, None] * 2**-20)

    monkeypatch.setattr(FrozenLayers, "_through", rounded)
    inputs = kept(build("llama"))
    assert isinstance(inputs, FrozenLayers) if good else inputs is tokens_of


def test_a_gpu_waits_once_for_states_and_not_at_all_for_those_that_are_there(tmp_path):
    with pretend() as gpus:
        session, batches = on_gpu("ultraedit", 40, f"editor.cache_dir={tmp_path}")
        assert isinstance(session.editor, Editor) and isinstance(session.inputs, FrozenLayers)
        with gpus.budget() as known:
            session.editor.step(batches, warm_up=False)
        session.inputs.kept, session.inputs._ahead = StateMemory(2**30), {}
        with gpus.budget() as unknown:
            session.editor.step(batches, warm_up=False)
    here = {place: count for place, count in unknown.waits.items() if "frozen.py" in place}
    assert [count for place, count in here.items() if "copy" in place] == [1], "all states come together"
    assert unknown.waits.total() <= 12 and unknown.waits.total() - sum(here.values()) < known.waits.total() + 1
    assert not any("frozen.py" in place for place in known.waits)
