"""model.py: whatever is wrong with a model's folder is one line that names it, and conversions clean up."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import model
from config.check import ConfigError
from config.compose import compose_config
from config.schema import ModelConfig, PromptFormat
from data.base import DataError
from data.batches import check_prompt_format
from files import whole_folder
from lifelong.setup import prepare
from model import load_model, load_tokenizer, model_skeleton
from tests.tiny import MODELS, SITES, tiny_words

CPU = torch.device("cpu")
WEIGHTS = "model.safetensors"
Change = Callable[[Path], Any]


def settings(**more: Any) -> Change:
    """Change keys of config.json."""

    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | more))

    return change


def text(name: str, content: str) -> Change:
    """Put a text in a file's place."""
    return lambda folder: (folder / name).write_text(content)


def index(content: str) -> Change:
    """Weights in pieces, by an index that is wrong."""

    def change(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        (folder / f"{WEIGHTS}.index.json").write_text(content)

    return change


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


WRONG: dict[str, tuple[Change, str]] = {
    "weights in a pickle": (pickled, r"pytorch_model\.bin is a pickle.*Convert it.*save_pretrained\(NEW\)"),
    "a larger hidden size": (
        settings(hidden_size=64),
        r"its weight lm_head\.weight is \[700, 48\], by its .*\[700, 64\]",
    ),
    "a smaller vocabulary": (
        settings(vocab_size=10),
        r"its weight lm_head\.weight is \[700, 48\], by its .*\[10, 48\]",
    ),
    "a negative size": (settings(hidden_size=-4), "negative dimension"),
    "a size that is a word": (settings(hidden_size="x"), "hidden_size"),
    "no heads": (settings(num_attention_heads=0), "cannot be opened"),
    "4 bits": (settings(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}), "are quantized"),
    "gptq": (settings(quantization_config={"quant_method": "gptq", "bits": 4}), "are quantized.*bfloat16"),
    "no quantization known": (settings(quantization_config=[1]), "cannot be opened"),
    "another architecture": (settings(model_type="gpt2"), "its weights lack transformer.h.0.*it holds model.embed"),
    "an encoder": (settings(model_type="bert"), "its weights lack bert"),
    "no causal model": (settings(model_type="t5"), "T5Config.*causal language model"),
    "a list of types": (settings(model_type=[1]), "cannot be opened"),
    "an unknown activation": (settings(hidden_act="nosuch"), "nosuch"),
    "an unknown dtype": (settings(dtype="nosuch", torch_dtype="nosuch"), "nosuch"),
    "settings that are null": (text("config.json", "null"), "cannot be opened"),
    "settings without end": (text("config.json", "[" * 100_000), "cannot be opened"),
    "generation settings in a list": (text("generation_config.json", "[1]"), "cannot be opened"),
    "an empty weights file": (text(WEIGHTS, ""), "header"),
    "an index that is a list": (index("[]"), "cannot be opened"),
    "an index that leads out": (index('{"weight_map": {"a": "../../x"}, "metadata": {}}'), "cannot be opened"),
    "an empty tokenizer file": (text("tokenizer.json", ""), "cannot be opened"),
    "a tokenizer of nothing": (text("tokenizer.json", "{}"), "cannot be opened"),
    "a tokenizer that is a list": (text("tokenizer.json", "[]"), "cannot be opened"),
    "tokenizer settings in a list": (text("tokenizer_config.json", "[1]"), "cannot be opened"),
}


def copied(folder: Path, change: Change) -> ModelConfig:
    """tiny-llama with something wrong."""
    shutil.copytree(MODELS / "tiny-llama", folder)
    change(folder)
    return ModelConfig(name="wrong", name_or_path=str(folder), edit_modules=SITES["tiny-llama"])


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_with_a_folder_is_one_line_that_names_it(kind, tmp_path):
    change, says = WRONG[kind]
    cfg = copied(tmp_path / "model", change)
    with pytest.raises(ConfigError, match=says) as error:
        model_skeleton(cfg)
        load_tokenizer(cfg)
        load_model(cfg, CPU)
    assert str(error.value).startswith(f"model.name_or_path={tmp_path / 'model'}: ")
    assert len(str(error.value).splitlines()) == 1 and len(str(error.value)) < 800


def test_memory_that_runs_out_is_not_the_folders_fault(monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(model.AutoModelForCausalLM, "from_pretrained", full)
    with pytest.raises(torch.OutOfMemoryError):
        load_model(copied_cfg(), CPU)


def copied_cfg() -> ModelConfig:
    return ModelConfig(name_or_path=str(MODELS / "tiny-llama"), edit_modules=SITES["tiny-llama"])


@pytest.mark.parametrize(
    "name", ["x" * 300, "a/" + "x" * 300, "/" + "x" * 300, "embedded:" + "x" * 300, "a/b\0c", "a/.."]
)
def test_names_that_cannot_be_are_refused_in_words(name):
    for open_it in (model_skeleton, load_tokenizer):
        with pytest.raises(ConfigError, match=r"model\.name_or_path="):
            open_it(ModelConfig(name_or_path=name, edit_modules=[]))


def test_a_tokenizer_without_words_is_refused_before_a_model_loads(tmp_path):
    def emptied(folder: Path) -> None:
        path = folder / "tokenizer.json"
        found = json.loads(path.read_text())
        found["model"] |= {"vocab": {}, "merges": []}
        path.write_text(json.dumps(found | {"added_tokens": []}))

    copied(tmp_path / "model", emptied)
    with pytest.raises((ConfigError, DataError), match="no token"):
        prepare(compose_config(tiny_words(f"model.name_or_path={tmp_path / 'model'}")))


@pytest.mark.parametrize(
    "template", ["{% if %}", "{{ nosuch.name }}", "{{ raise_exception('no user may speak') }}", "{{ 1 / 0 }}"]
)
def test_a_chat_template_that_fails_is_named_where_it_is_used(template):
    tokenizer = load_tokenizer(copied_cfg())
    tokenizer.chat_template = template
    check_prompt_format(tokenizer, PromptFormat.qa, "tiny")
    with pytest.raises(
        ConfigError, match=r"dataset\.prompt_format=chat: the chat template of tiny .*use raw or qa"
    ) as error:
        check_prompt_format(tokenizer, PromptFormat.chat, "tiny")
    assert len(str(error.value).splitlines()) == 1


def embedded(folder: Path) -> ModelConfig:
    return ModelConfig(name_or_path="embedded:smollm2-135m", edit_modules=[], embedded_cache_dir=str(folder))


def test_what_a_killed_conversion_left_goes_and_two_at_once_convert_once(tmp_path, monkeypatch):
    """The parts stand beside the folder as whole_folder leaves them when it is killed."""
    for name in (".smollm2-135m-abcdefgh", ".smollm2-135m-01234567.part"):
        (tmp_path / name / "new").mkdir(parents=True)
        (tmp_path / name / "new" / WEIGHTS).write_bytes(b"half")
    (tmp_path / ".another-model-abcdefgh").mkdir()
    (tmp_path / "notes.txt").write_text("not ours")
    calls: list[Path] = []

    def convert(_: Any, folder: Path) -> None:
        calls.append(folder)
        with whole_folder(folder) as fresh:
            entered.set()
            assert go.wait(10)
            shutil.copytree(MODELS / "tiny-llama", fresh, dirs_exist_ok=True)

    entered, go = threading.Event(), threading.Event()
    monkeypatch.setattr(model, "_convert_gguf", convert)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(model.model_source(embedded(tmp_path)))) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert entered.wait(10)
    go.set()
    for thread in threads:
        thread.join()
    assert calls == [tmp_path / "smollm2-135m"] and found == [str(tmp_path / "smollm2-135m")] * 2
    left = {path.name for path in tmp_path.iterdir()} - {"smollm2-135m.lock"}
    assert left == {"smollm2-135m", "notes.txt", ".another-model-abcdefgh"}


def test_a_conversion_that_cannot_be_written_names_the_key(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model, "_convert_gguf", full)
    with pytest.raises(ConfigError, match=rf"model\.embedded_cache_dir={tmp_path}.*No space.*name a folder"):
        model.model_source(embedded(tmp_path))
