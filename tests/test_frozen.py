"""editor/frozen.py: skipping the layers below the sites moves no number."""

from __future__ import annotations

import gc
import json
import logging
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from transformers import (
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from config.check import ConfigError
from config.choices import TokenRows
from config.compose import compose_config
from data.batches import Batch, step_batches, tokenize
from editor import frozen
from editor.capture import Inputs, answer_logits, capture_together, tokens_of, weight_gradients
from editor.sites import find_sites
from editor.states import ENTRY, StateFile
from lifelong import run as lifelong_run
from lifelong import session
from lifelong.answers import answers
from tests.test_resume import LEARNED, Killed, assert_same_run, kill_after, run
from tests.tiny import PROJECT, SITES, load_tiny, run_main, tiny_batch, tiny_edits, tiny_tokenizer, tiny_words

OFF = "model.frozen_memory_gib=0"
UPPER = ["model.layers.2.mlp.down_proj", "model.layers.3.self_attn.o_proj"]
SIZES = {"vocab_size": 700, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 4}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2}  # attention that matters
CLASSES = {
    "llama": (LlamaForCausalLM, LlamaConfig),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config),
    "mistral": (MistralForCausalLM, MistralConfig),
}


def build(name: str, dtype: torch.dtype = torch.float32, **more: Any) -> PreTrainedModel:
    """A model of random weights, the same ones every time."""
    torch.manual_seed(0)
    model_class, config_class = CLASSES[name]
    return model_class(config_class(**SIZES | more)).to(dtype).eval().requires_grad_(False)


def install(model: PreTrainedModel, folder: Path | None, sites: list[str] = UPPER, gib: float = 1.0) -> Inputs:
    """As a run does, with its keys."""
    cfg = compose_config(tiny_words()).model
    cfg.edit_modules, cfg.frozen_cache_gib, cfg.frozen_memory_gib = sites, gib, 0
    cfg.frozen_cache_dir = None if folder is None else str(folder)
    return frozen.frozen_inputs(model, cfg)


def lower_calls(model: PreTrainedModel) -> list[int]:
    """Gets the number of sequences, those that fill a group up left out, whenever layer 0 will run from now."""
    seen: list[int] = []
    words = model.base_model.embed_tokens
    words.register_forward_hook(lambda _, inputs, __: seen.append(int(inputs[0].any(1).sum())))
    return seen


def logits(model: PreTrainedModel, batch: Batch, inputs: Inputs = tokens_of) -> torch.Tensor:
    with torch.no_grad():
        return answer_logits(model, batch, inputs)[0]


def keys(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("name", list(CLASSES))
def test_logits_are_those_of_the_whole_model(name, tmp_path):
    model, batch = build(name), tiny_batch("tiny-llama")
    expected = logits(model, batch)
    inputs = install(model, tmp_path)
    seen = lower_calls(model)
    computed, read = logits(model, batch, inputs), logits(model, batch, inputs)
    assert sum(seen) == len(batch.input_ids_BT), "the second call must only read"
    assert_close(computed, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(read, computed)
    assert install(model, None) is tokens_of
    assert torch.equal(logits(model, batch), expected), "the model itself stays whole"


def test_changed_sites_are_seen_and_the_layers_below_are_not_run(tmp_path):
    model, batch = build("llama"), tiny_batch("tiny-llama")
    before = logits(model, batch)
    inputs = install(model, tmp_path)
    logits(model, batch, inputs)
    for site in find_sites(model, UPPER):
        site.weight.mul_(-1.5)
    seen = lower_calls(model)
    found = logits(model, batch, inputs)
    assert not seen
    assert_close(found, logits(model, batch), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found, before, atol=0.1)


def test_a_sequence_is_found_whatever_it_is_padded_with(tmp_path):
    model = build("llama")
    parts = step_batches(tiny_tokenizer("tiny-llama"), tiny_edits(count=12), 3).edit
    expected = [logits(model, part) for part in parts]
    assert len({part.input_ids_BT.shape[1] for part in parts}) > 1
    inputs = install(model, tmp_path)
    logits(model, step_batches(tiny_tokenizer("tiny-llama"), tiny_edits(count=12), 12).edit[0], inputs)
    seen = lower_calls(model)
    for part, whole in zip(parts, expected, strict=True):
        assert_close(logits(model, part, inputs), whole, rtol=1e-5, atol=1e-5)
    assert not seen


def test_only_what_is_missing_is_computed(tmp_path):
    model = build("llama")
    few, many = (step_batches(tiny_tokenizer("tiny-llama"), tiny_edits(count=n), n).edit[0] for n in (4, 9))
    expected = logits(model, many)
    inputs = install(model, tmp_path)
    logits(model, few, inputs)
    seen = lower_calls(model)
    assert_close(logits(model, many, inputs), expected, rtol=1e-5, atol=1e-5)
    assert sum(seen) == 5


@pytest.mark.parametrize("token", list(TokenRows))
@pytest.mark.parametrize("sites", [UPPER, ["lm_head", *UPPER]])
def test_captured_rows_are_those_of_the_whole_model(sites, token, tmp_path):
    model = build("llama")
    batches = step_batches(tiny_tokenizer("tiny-llama"), tiny_edits(count=12), 5).edit
    expected = capture_together(model, find_sites(model, sites), batches, token)
    inputs = install(model, tmp_path, sites)
    seen = lower_calls(model)
    for _ in range(2):
        found = capture_together(model, find_sites(model, sites), batches, token, inputs)
        for one, other in zip(found, expected, strict=True):
            assert one.tokens == other.tokens
            assert_close(one.loss, other.loss)
            for mine, whole in zip(one.rows, other.rows, strict=True):
                assert_close(mine.keys_NK, whole.keys_NK, rtol=1e-4, atol=1e-5)
                assert_close(mine.gradients_NV, whole.gradients_NV, rtol=1e-4, atol=1e-6)
    assert sum(seen) == 12


def test_weight_gradients_are_those_of_the_whole_model(tmp_path):
    model, batch = build("llama"), tiny_batch("tiny-llama")
    sites = find_sites(model, UPPER)
    loss, expected = weight_gradients(model, sites, batch, torch.nn.functional.cross_entropy)
    inputs = install(model, tmp_path)
    for _ in range(2):
        found_loss, found = weight_gradients(model, sites, batch, torch.nn.functional.cross_entropy, inputs)
        assert_close(found_loss, loss)
        for mine, whole in zip(found, expected, strict=True):
            assert_close(mine, whole, rtol=1e-4, atol=1e-6)


def test_answers_are_those_of_the_whole_model(tmp_path):
    model = build("llama")
    pairs = [(edit.prompt, edit.answer) for edit in tiny_edits(count=12)]
    rows = tokenize(tiny_tokenizer("tiny-llama"), pairs)
    rows.append(rows[0])  # a sequence that stands twice in a batch
    expected = answers(model, rows, 200)
    inputs = install(model, tmp_path)
    assert answers(model, rows, 200, inputs=inputs) == expected  # computed in inference mode
    assert answers(model, rows, 10**6, inputs=inputs) == expected
    capture_together(model, find_sites(model, UPPER), [tiny_batch("tiny-llama")], TokenRows.ans, inputs)


def test_the_model_is_whole_after_a_failure(tmp_path):
    model, batch = build("llama"), tiny_batch("tiny-llama")
    inputs = install(model, tmp_path)
    layers, norm = model.model.layers, model.model.norm
    wrong = Batch(batch.input_ids_BT + 10_000, batch.attention_BT, batch.labels_BT)
    with pytest.raises(IndexError):
        logits(model, wrong, inputs)
    with pytest.raises(RuntimeError, match="inside"), inputs(model, batch):
        raise RuntimeError("inside")
    assert model.model.layers is layers and model.model.norm is norm


def test_bfloat16_states_are_kept_as_they_are(tmp_path):
    model, batch = build("llama", torch.bfloat16), tiny_batch("tiny-llama")
    expected = logits(model, batch)
    inputs = install(model, tmp_path)
    computed, read = logits(model, batch, inputs), logits(model, batch, inputs)
    assert inputs.kept.dtype is torch.bfloat16
    assert torch.equal(computed, read)
    assert (computed - expected).norm() < 0.02 * expected.norm()


def test_a_model_that_is_done_with_is_not_kept(tmp_path):
    model = build("llama")
    inputs = install(model, tmp_path)
    gone = weakref.ref(model)
    del model, inputs
    gc.collect()
    assert gone() is None


def test_what_the_states_depend_on_is_in_the_folders_name(tmp_path):
    def folder(model: PreTrainedModel, sites: list[str] = UPPER) -> str:
        before = keys(tmp_path)
        install(model, tmp_path, sites)
        return (keys(tmp_path) - before or {""}).pop()

    model = build("llama")
    assert folder(model)
    above = build("llama")
    above.model.layers[2].mlp.down_proj.weight.add_(1)
    above.model.layers[3].mlp.up_proj.weight.add_(1)
    above.lm_head.weight.add_(1)
    assert not folder(above), "weights above must not matter"
    below = build("llama")
    below.model.layers[1].mlp.down_proj.weight.add_(0.01)
    words = build("llama")
    words.model.embed_tokens.weight.add_(0.01)
    assert folder(below) and folder(words)
    assert folder(model, UPPER[1:]), "another lowest layer"
    assert folder(build("llama", rms_norm_eps=1e-3)) and folder(build("llama", torch.bfloat16))
    assert folder(build("llama", attn_implementation="eager"))


@pytest.mark.parametrize("sites", [[*UPPER, "model.layers.0.mlp.up_proj"], ["lm_head"]])
def test_nothing_is_frozen_where_nothing_lies_below(sites, tmp_path):
    assert install(build("llama"), tmp_path, sites) is tokens_of
    assert not keys(tmp_path)


def test_a_run_says_that_nothing_lies_below(tmp_path, caplog):
    sites = ["model.layers.0.mlp.down_proj"]
    with caplog.at_level(logging.WARNING):
        run(
            tmp_path / "run", tiny_words(f"model.frozen_cache_dir={tmp_path / 'states'}", f"model.edit_modules={sites}")
        )
    assert "model.frozen_cache_dir has no effect" in caplog.text


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-gptj"])
def test_an_architecture_without_such_layers_is_refused(name, tmp_path):
    with pytest.raises(ConfigError, match=r"model\.frozen_cache_dir: .*cannot be run apart.*null"):
        install(load_tiny(name), tmp_path, SITES[name])


def test_layers_of_several_kinds_are_refused(tmp_path):
    kinds = ["full_attention", "full_attention", "sliding_attention", "sliding_attention"]
    more = {"use_sliding_window": True, "sliding_window": 4, "layer_types": kinds}
    with pytest.raises(ConfigError, match=r"model\.frozen_cache_dir"):
        install(build("qwen2", **more), tmp_path)


def test_a_model_that_scales_its_embeddings_is_refused(tmp_path):
    torch.manual_seed(0)
    config = GraniteConfig(**SIZES, embedding_multiplier=12.0)
    with pytest.raises(ConfigError, match=r"model\.frozen_cache_dir: the layers of GraniteModel"):
        install(GraniteForCausalLM(config).eval(), tmp_path)


def test_a_model_on_several_devices_is_refused(tmp_path):
    model = build("llama")
    model.hf_device_map = {"model.embed_tokens": 0, "model.layers.0": 0, "model.layers.1": 1}
    with pytest.raises(ConfigError, match=r"model\.frozen_cache_dir: .*several devices"):
        install(model, tmp_path)
    model.hf_device_map = {"": "cpu"}
    inputs = install(model, tmp_path)
    assert inputs is not tokens_of


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=rf"model\.frozen_cache_dir={tmp_path}/file.*another folder"):
        install(build("llama"), tmp_path / "file")


@pytest.mark.parametrize(
    ("model", "folder", "says"),
    [("tiny-gpt2", "states", "cannot be run apart; set it to null"), ("tiny-llama", "file", "name another folder")],
)
def test_what_cannot_serve_is_refused_before_a_model_loads(model, folder, says, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "load_model", lambda *_: pytest.fail("a model was loaded"))
    (tmp_path / "file").write_text("")
    words = tiny_words(f"model.frozen_cache_dir={tmp_path / folder}", model=model)
    with pytest.raises(ConfigError, match=rf"model\.frozen_cache_dir.*{says}"):
        run(tmp_path / "run", words)


@pytest.mark.parametrize("room", [0, 6000])
def test_results_are_right_where_the_file_is_full(room, tmp_path):
    model, batch = build("llama"), tiny_batch("tiny-llama")
    expected = logits(model, batch)
    inputs = install(model, tmp_path, gib=room / 2**30)
    seen = lower_calls(model)
    for _ in range(2):
        assert_close(logits(model, batch, inputs), expected, rtol=1e-5, atol=1e-5)
    assert sum(seen) == (9 if room else 10), "what did not fit is computed again"
    (folder,) = tmp_path.iterdir()
    assert (folder / "states.bin").stat().st_size <= room


WIDTH = 6


def states(*ids: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Made-up states that tell their tokens and their places."""
    return (torch.tensor(ids).unsqueeze(1) * 10 + torch.arange(WIDTH)).to(dtype)


def opened(folder: Path, most: int = 2**20, dtype: torch.dtype = torch.float32) -> StateFile:
    return StateFile(folder, WIDTH, dtype, most)


def put(file: StateFile, *sequences: tuple[int, ...]) -> None:
    file.add(sequences, [states(*ids, dtype=file.dtype) for ids in sequences])


def entries(folder: Path) -> list[bytes]:
    """The whole entries of an index, which start with 16 bytes that stand for a sequence."""
    data = (folder / "index.bin").read_bytes()
    return [data[start : start + ENTRY.size] for start in range(0, len(data) - ENTRY.size + 1, ENTRY.size)]


def assert_has(file: StateFile, *sequences: tuple[int, ...]) -> None:
    for ids in sequences:
        for asked in (ids, list(ids)):
            found = file.get(asked)
            assert found is not None and torch.equal(found, states(*ids, dtype=file.dtype))
    assert len({entry[:16] for entry in entries(file.folder)}) == len(sequences)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_one_adds_another_finds(dtype, tmp_path):
    one, two = opened(tmp_path, dtype=dtype), opened(tmp_path, dtype=dtype)
    put(one, (1, 2, 3), (4,), ())
    assert one.get((1, 2)) is None
    held = two.get((1, 2, 3))
    assert held is not None
    put(two, (5, 6), (4,), (5, 6))
    for file in (one, two, opened(tmp_path, dtype=dtype)):
        assert_has(file, (1, 2, 3), (4,), (), (5, 6))
    assert (tmp_path / "states.bin").stat().st_size == 6 * WIDTH * dtype.itemsize, "nothing may stand twice"
    held.zero_()
    assert_has(two, (1, 2, 3), (4,), (), (5, 6))
    assert one.get((7,)) is None


def test_two_threads_at_once_lose_nothing(tmp_path):
    sequences = [(n, n + 1, n % 7) for n in range(60)]

    def add(order: list[tuple[int, ...]]) -> None:
        file = opened(tmp_path)
        for ids in order:
            put(file, ids)

    threads = [threading.Thread(target=add, args=[order]) for order in (sequences, sequences[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_has(opened(tmp_path), *sequences)
    assert (tmp_path / "states.bin").stat().st_size == 60 * 3 * WIDTH * 4, "nothing may stand twice"


WRITER = f"""
import sys
from pathlib import Path
import torch
from editor.states import StateFile
file, first = StateFile(Path(sys.argv[1]), {WIDTH}, torch.float32, 2**20), int(sys.argv[2])
print("ready", flush=True)
input()
for n in range(first, first + 40):
    file.add([(n, n + 1)], [torch.tensor([[n], [n + 1]]) * 10 + torch.arange({WIDTH})])
"""


def test_two_processes_at_once_lose_nothing(tmp_path):
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": PROJECT}
    commands = [[sys.executable, "-c", WRITER, str(tmp_path), first] for first in ("0", "20")]
    running = [subprocess.Popen(command, **pipes) for command in commands]
    assert [process.stdout.readline() for process in running] == ["ready\n"] * 2
    for process in running:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in running:
        process.communicate(timeout=120)
    assert [process.returncode for process in running] == [0, 0]
    assert_has(opened(tmp_path), *((n, n + 1) for n in range(60)))


@pytest.mark.parametrize("torn", [1, ENTRY.size - 1])
def test_an_entry_that_a_killed_process_left_unfinished(torn, tmp_path):
    put(opened(tmp_path), (1, 2))
    with open(tmp_path / "index.bin", "ab") as file:
        file.write(b"x" * torn)
    reader = opened(tmp_path)
    assert_has(reader, (1, 2))
    put(opened(tmp_path), (3,))
    put(reader, (4, 5))
    for file in (reader, opened(tmp_path)):
        assert_has(file, (1, 2), (3,), (4, 5))


@pytest.mark.parametrize("orphaned", [1, 3, 1000])
def test_states_that_nothing_names(orphaned, tmp_path):
    put(opened(tmp_path), (1, 2))
    with open(tmp_path / "states.bin", "ab") as file:
        file.write(b"x" * orphaned)
    put(opened(tmp_path), (3,), (4, 5))
    assert_has(opened(tmp_path), (1, 2), (3,), (4, 5))


def test_killed_between_states_and_entries(tmp_path, monkeypatch):
    file = opened(tmp_path)
    put(file, (1, 2))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 1, os, "fsync")  # the states are written, their entries are not
        put(file, (3, 4))
    assert_has(opened(tmp_path), (1, 2))
    put(file, (3, 4), (5,))
    assert_has(opened(tmp_path), (1, 2), (3, 4), (5,))


def test_states_that_are_cut_are_missing_and_come_anew(tmp_path):
    file = opened(tmp_path)
    put(file, (1, 2), (3,))
    with open(tmp_path / "states.bin", "ab") as cut:
        cut.truncate(3 * WIDTH * 4 - 1)
    assert file.get((3,)) is None and opened(tmp_path).get((3,)) is None
    put(file, (3,))
    for reader in (file, opened(tmp_path)):
        assert_has(reader, (1, 2), (3,))


@pytest.mark.parametrize("place", [0, 2 * WIDTH * 4 - 1])
def test_a_byte_that_changed_is_noticed_and_the_states_come_anew(place, tmp_path):
    first, second = opened(tmp_path), opened(tmp_path)
    put(first, (1, 2), (3,))
    flip(tmp_path / "states.bin", place)
    for file in (first, second, opened(tmp_path)):
        assert file.get((1, 2)) is None and file.get((3,)) is not None
    put(first, (1, 2))
    for file in (first, second, opened(tmp_path)):
        assert_has(file, (1, 2), (3,))
    assert len(entries(tmp_path)) == 3, "one entry more, whoever looks"


@pytest.mark.parametrize("place", range(ENTRY.size))
def test_a_byte_that_changed_in_an_entry_gives_no_wrong_states(place, tmp_path):
    put(opened(tmp_path), (1, 2), (3,))
    flip(tmp_path / "index.bin", place)
    file = opened(tmp_path)
    assert file.get((1, 2)) is None
    put(file, (1, 2))
    assert torch.equal(file.get((1, 2)), states(1, 2)) and torch.equal(file.get((3,)), states(3))


def test_an_entry_that_a_power_cut_left_blank_gives_no_states(tmp_path):
    put(opened(tmp_path), (1, 2), (3,))
    index = (tmp_path / "index.bin").read_bytes()
    (tmp_path / "index.bin").write_bytes(index[:16] + bytes(ENTRY.size - 16) + index[ENTRY.size :])
    file = opened(tmp_path)
    assert file.get((1, 2)) is None, "of no states at all the checksum is 0 too"
    put(file, (1, 2))
    assert_has(file, (1, 2), (3,))


def flip(path: Path, place: int) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[place] ^= 0x40
    path.write_bytes(data)


def test_a_run_computes_damaged_states_anew(tmp_path):
    model, batch = build("llama"), tiny_batch("tiny-llama")
    expected = logits(model, batch, install(model, tmp_path))
    (folder,) = tmp_path.iterdir()
    flip(folder / "states.bin", (folder / "states.bin").stat().st_size - 3)
    inputs, seen = install(model, tmp_path), lower_calls(model)
    for _ in range(2):
        assert_close(logits(model, batch, inputs), expected, rtol=1e-5, atol=1e-5)
    assert sum(seen) == 1, "the damaged sequence alone, once"


def test_a_full_file_takes_what_still_fits(tmp_path):
    file = opened(tmp_path, most=5 * WIDTH * 4)
    put(file, (1, 2), (3, 4, 5, 6), (7, 8, 9))
    put(file, (10,))
    assert_has(file, (1, 2), (7, 8, 9))
    assert (tmp_path / "states.bin").stat().st_size == 5 * WIDTH * 4


def close(found: Any, expected: Any) -> bool:
    """Whether two JSON values agree, numbers nearly so."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(close(found[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(close, found, expected))
    return found == (pytest.approx(expected, rel=1e-3, abs=1e-5) if isinstance(expected, float) else expected)


def results(run_dir: Path, argv: list[str]) -> dict[str, Any]:
    found = lifelong_run.run(compose_config(argv), run_dir)
    return {key: found[key] for key in ("ES", "GS", "LS", "pre", "metrics", "examples", "counts")}


def test_a_whole_run_gives_the_same_results(tmp_path):
    argv = tiny_words("eval.every=1", "eval.sample=6", f"model.edit_modules=[{','.join(UPPER)}]")
    expected = results(tmp_path / "without", [*argv, OFF])
    done = run_main(*argv, f"model.frozen_cache_dir={tmp_path}/cache", f"hydra.run.dir={tmp_path}/with", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "with" / "results.json").read_text())
    assert close({key: found[key] for key in expected}, json.loads(json.dumps(expected)))
    assert expected["ES"] != expected["pre"]["ES"], "editing must do something"
    (folder,) = (tmp_path / "cache").iterdir()
    before = (folder / "states.bin").stat().st_size
    assert before > 10**5
    again = results(tmp_path / "again", [*argv, f"model.frozen_cache_dir={tmp_path}/cache"])
    assert close(again, expected)
    assert (folder / "states.bin").stat().st_size == before, "a second run finds everything"


@pytest.mark.parametrize("editor", ["malmen", "rledit"])
def test_a_learned_editor_gives_the_same_results(editor, tmp_path):
    more = [*LEARNED, *(["editor.back_depth=2"] if editor == "rledit" else [])]
    argv = tiny_words(*more, editor=editor)
    expected = results(tmp_path / "without", [*argv, OFF])
    for name in ("first", "second"):
        assert close(results(tmp_path / name, [*argv, f"model.frozen_cache_dir={tmp_path}/cache"]), expected)


@pytest.mark.parametrize("filled", [True, False])
def test_a_resumed_run_is_the_uninterrupted_one(filled, tmp_path, monkeypatch):
    def argv(name: str) -> list[str]:
        folder = tmp_path / ("shared" if filled else f"cache-{name}")
        return tiny_words("checkpoint.every=1", f"model.frozen_cache_dir={folder}")

    if filled:
        results(tmp_path / "fills", argv("fills"))
    results(tmp_path / "whole", argv("whole"))
    with monkeypatch.context() as patch:
        kill_after(patch, 4, lifelong_run.Loop, "step")
        with pytest.raises(Killed):
            results(tmp_path / "killed", argv("killed"))
    results(tmp_path / "unused", [*argv("killed"), f"resume={tmp_path / 'killed'}"])
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_what_was_measured_before_editing_is_found_with_and_without(tmp_path):
    argv = tiny_words(f"eval.cache_dir={tmp_path}/eval")
    results(tmp_path / "without", [*argv, OFF])
    results(tmp_path / "with", [*argv, f"model.frozen_cache_dir={tmp_path}/cache"])
    assert len([path for path in (tmp_path / "eval").iterdir() if path.is_dir()]) == 1
