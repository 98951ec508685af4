"""Model folders: weights, configuration, tokenizer, and the names by which a model is opened."""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.hostile import spoil
from tests.hostile.case import Case, Wants, accepted, either, refused
from tests.hostile.clean import Clean, model_copy, same_run, small
from tests.hostile.keys import LONG
from tests.tiny import MODELS

KEY = "model.name_or_path"
SAME = same_run("small")
SITE, OTHER, UP = "model.layers.2.mlp.down_proj.weight", "model.layers.0.self_attn.q_proj.weight", "lm_head.weight"
Weights = dict[str, Tensor]


def without(name: str) -> Callable[[Weights], Any]:
    """Weights that lack one."""
    return lambda weights: weights.pop(name)


def changed(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[Weights], Any]:
    """Weights of which one is another."""
    return lambda weights: weights.__setitem__(name, change(weights[name]).contiguous())


def filled(value: float) -> Callable[[Tensor], Tensor]:
    """A change of one number."""
    return lambda tensor: tensor.index_fill(0, torch.tensor([0]), value)


WEIGHTS: list[tuple[str, Callable[[Weights], Any], Wants]] = [
    ("without a site's weight", without(SITE), refused(KEY, SITE)),
    ("without a weight below", without(OTHER), refused(KEY, OTHER)),
    ("without a norm", without("model.norm.weight"), refused(KEY, "model.norm.weight")),
    ("without its embeddings", without("model.embed_tokens.weight"), refused(KEY, "embed_tokens")),
    ("without any weight", dict.clear, refused(KEY)),
    ("with one weight too many", lambda w: w.update(more=torch.ones(3)), either("it is named in the log", KEY, "more",
     same=SAME)),
    ("with a layer too many", lambda w: w.update({OTHER.replace("0", "9"): torch.ones(3, 3)}),
     either("it is named in the log", KEY, "layers.9", same=SAME)),
    ("with a site under another name", lambda w: w.update(x=w.pop(SITE)), refused(KEY, SITE)),
    ("with a site turned round", changed(SITE, lambda t: t.T), refused(KEY, SITE)),
    ("with a site too large", changed(SITE, lambda t: torch.cat([t, t])), refused(KEY, SITE)),
    ("with a weight of one number", changed(OTHER, lambda t: t[0, 0]), refused(KEY, OTHER)),
    ("with a weight of no number", changed(OTHER, lambda t: t[:0]), refused(KEY, OTHER)),
    ("with a NaN in a site", changed(SITE, filled(float("nan"))), refused(KEY, "finite")),
    ("with a NaN below", changed(OTHER, filled(float("nan"))), refused(KEY, "finite")),
    ("with infinity in a site", changed(SITE, filled(float("inf"))), refused(KEY, "finite")),
    ("with whole numbers", changed(SITE, lambda t: t.to(torch.int8)), either("read as numbers", KEY, SITE)),
    ("with doubles", changed(SITE, lambda t: t.double()), accepted("the same numbers", SAME)),
]  # fmt: skip
CONFIG: list[tuple[str, Callable[[Any], Any], Wants]] = [
    ("a list", lambda c: [c], refused(KEY)),
    ("null", lambda c: "null", refused(KEY)),
    ("no model_type", spoil.drop("model_type"), refused(KEY)),
    ("an unknown model_type", spoil.put("model_type", "nope"), refused(KEY, "nope")),
    ("a model_type of a number", spoil.put("model_type", 7), refused(KEY)),
    ("another architecture's model_type", spoil.put("model_type", "gpt2"), refused(("model.edit_modules", KEY))),
    ("an encoder's model_type", spoil.put("model_type", "vit"), refused(KEY)),
    ("architectures of nothing", spoil.put("architectures", []), accepted("the model_type says it", SAME)),
    ("architectures of another", spoil.put("architectures", ["BertModel"]),
     either("model_type says it", KEY, same=SAME)),
    ("architectures of numbers", spoil.put("architectures", 7), either("the model_type says it", KEY, same=SAME)),
    ("a layer too many", spoil.put("num_hidden_layers", 7), refused(KEY, "lack", "layers.4")),
    ("two layers", spoil.put("num_hidden_layers", 2), refused("model.edit_modules")),
    ("no layers", spoil.put("num_hidden_layers", 0), refused(("model.edit_modules", KEY))),
    ("-1 layers", spoil.put("num_hidden_layers", -1), refused(("model.edit_modules", KEY))),
    ("layers in words", spoil.put("num_hidden_layers", "many"), refused(KEY)),
    ("a layer and a half", spoil.put("num_hidden_layers", 1.5), refused(KEY)),
    ("null layers", spoil.put("num_hidden_layers", None), refused(KEY)),
    ("another width", spoil.put("hidden_size", 96), refused(KEY)),
    ("a width of 0", spoil.put("hidden_size", 0), refused(KEY)),
    ("a width of -8", spoil.put("hidden_size", -8), refused(KEY)),
    ("a width of 1e20", spoil.put("hidden_size", 10**20), refused(KEY)),
    ("a larger vocabulary", spoil.put("vocab_size", 5000), refused(KEY, ("embed_tokens", "lm_head"))),
    ("a vocabulary of 3", spoil.put("vocab_size", 3), refused(KEY)),
    ("another inner width", spoil.put("intermediate_size", 33), refused(KEY)),
    ("heads that do not divide", spoil.put("num_attention_heads", 5), refused(KEY)),
    ("no heads", spoil.put("num_attention_heads", 0), refused(KEY)),
    ("an unknown activation", spoil.put("hidden_act", "nope"), refused(KEY, "nope")),
    ("a context of 4", spoil.put("max_position_embeddings", 4), refused("dataset.valid_path", "context")),
    ("a context of null", spoil.put("max_position_embeddings", None), either("no limit is known", KEY)),
    ("a context of words", spoil.put("max_position_embeddings", "long"), refused(KEY)),
    ("a context of -1", spoil.put("max_position_embeddings", -1), refused((KEY, "context"))),
    ("a norm's eps of words", spoil.put("rms_norm_eps", "small"), refused(KEY)),
    ("rope_theta of 0", spoil.put("rope_theta", 0), either("as the model says", KEY)),
    ("rope of nothing", spoil.put("rope_scaling", {"rope_type": "nope"}), refused(KEY, "nope")),
    ("an unknown dtype", spoil.put("dtype", "float7"), refused(KEY, "float7")),
    ("8-bit weights", spoil.put("quantization_config", {"quant_method": "bitsandbytes", "load_in_8bit": True}),
     refused(KEY, "quanti")),
    ("GPTQ weights", spoil.put("quantization_config", {"quant_method": "gptq", "bits": 4}), refused(KEY, "quanti")),
    ("AWQ weights", spoil.put("quantization_config", {"quant_method": "awq", "bits": 4}), refused(KEY, "quanti")),
    ("FP8 weights", spoil.put("quantization_config", {"quant_method": "fp8"}), refused(KEY, "quanti")),
    ("an unknown quantization", spoil.put("quantization_config", {"quant_method": "x"}), refused(KEY, "quanti")),
    ("quantized with nothing said", spoil.put("quantization_config", {}),
     either("nothing is quantized", KEY, "quanti")),
    ("code of its own", spoil.put("auto_map", {"AutoModelForCausalLM": "evil.Model"}), either("never run", KEY,
     same=SAME)),
]  # fmt: skip
TOKENIZER: list[tuple[str, str, Callable[[Any], Any], Wants]] = [
    ("no vocabulary", "tokenizer.json", lambda t: t["model"].update(vocab={}, merges=[]), refused((KEY, "no token"))),
    ("no model", "tokenizer.json", spoil.drop("model"), refused(KEY)),
    ("a vocabulary beyond the model", "tokenizer.json", lambda t: t["model"].update(
        vocab={k: v + 10_000 for k, v in t["model"]["vocab"].items()}), refused(KEY)),
    ("an added token beyond the model", "tokenizer.json", lambda t: t["added_tokens"].append(
        t["added_tokens"][0] | {"id": 99_999, "content": "the", "special": False}), refused(KEY)),
    ("a list", "tokenizer_config.json", lambda t: [t], refused(KEY)),
    ("an unknown class", "tokenizer_config.json", spoil.put("tokenizer_class", "Nope"), either("read as it is", KEY,
     same=SAME)),
    ("a class that is no name", "tokenizer_config.json", spoil.put("tokenizer_class", 7), either("read as it is", KEY,
     same=SAME)),
    ("a broken chat template", "tokenizer_config.json", spoil.put("chat_template", "{% if %}"), refused("chat")),
    ("a chat template of nothing", "tokenizer_config.json", spoil.put("chat_template", " "), refused("chat")),
    ("a chat template of a number", "tokenizer_config.json", spoil.put("chat_template", 7), refused(("chat", KEY))),
    ("a chat template that fails", "tokenizer_config.json", spoil.put("chat_template", "{{ x.y.z }}"), refused("chat")),
    ("a chat template that refuses", "tokenizer_config.json",
     spoil.put("chat_template", "{{ raise_exception('no') }}"), refused("chat")),
    ("a chat template without an end", "tokenizer_config.json",
     spoil.put("chat_template", "{% for i in range(10**12) %}a{% endfor %}"), refused("chat")),
    ("no chat template", "tokenizer_config.json", spoil.put("x", 1), refused("dataset.prompt_format=chat")),
]  # fmt: skip
NAMES: list[tuple[str, str, Wants]] = [
    ("empty", "''", refused(KEY)), ("a point", ".", refused(KEY)), ("the root", "/", refused(KEY)),
    ("three parts", "a/b/c", refused(KEY, "a/b/c")), ("parents", "../../..", refused(KEY)),
    ("300 characters", LONG, refused(KEY)), ("300 characters of two parts", f"a/{LONG}", refused(KEY)),
    ("an address", "https://huggingface.co/a/b", refused(KEY)), ("a hub id", "someone/nothing",
     refused(KEY, "hf download")),
    ("embedded", "embedded:", refused(KEY)), ("unknown embedded", "embedded:x", refused(KEY, "smollm2-135m")),
    ("embedded parents", "embedded:../x", refused(KEY)), ("a file", str(MODELS / "tiny-llama/config.json"),
     refused(KEY)),
    ("a device", "/dev/null", refused(KEY)), ("odd signs", "'a b/c?d'", refused(KEY)), ("a NUL", "'a\0b'",
     refused(KEY)),
    ("a user that is none", "'~nobody0/x'", refused(KEY)), ("below a device", "/dev/null/x", refused(KEY)),
]  # fmt: skip


def spoiled(name: str, do: Callable[[Path], object], want: Wants, *words: str) -> Case:
    """A run of one step on a copy of the tiny model that `do` has spoiled."""

    def make(folder: Path, _: Clean) -> list[str]:
        do(model_copy(folder))
        return small(f"{KEY}={folder / 'model'}", *words)

    return Case("models", name, make, want)


def reweighted(change: Callable[[Weights], Any]) -> Callable[[Path], None]:
    """Write the weights anew after a change."""

    def do(model: Path) -> None:
        weights = load_file(model / "model.safetensors")
        change(weights)
        save_file(weights, model / "model.safetensors", metadata={"format": "pt"})

    return do


def header(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Another header of the weights' file; its length stays what it says."""

    def do(model: Path) -> None:
        content = (model / "model.safetensors").read_bytes()
        (size,) = struct.unpack("<Q", content[:8])
        (model / "model.safetensors").write_bytes(content[:8] + change(content[8 : 8 + size]) + content[8 + size :])

    return do


def in_json(file: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Another JSON file."""
    return lambda model: spoil.edit_json(model / file, change)


def pickled(model: Path) -> None:
    """Weights as a pickle alone."""
    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()


def sharded(model: Path) -> None:
    """An index that names a file that is not there."""
    names = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "model-00001-of-00002.safetensors")}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


def outside(model: Path) -> None:
    """An index that names a file outside the folder."""
    sharded(model)
    shutil.copy2(MODELS / "tiny-llama/model.safetensors", model.parent / "w.safetensors")
    spoil.edit_json(model / "model.safetensors.index.json", lambda c: {
        "metadata": {}, "weight_map": dict.fromkeys(c["weight_map"], "../w.safetensors")})  # fmt: skip


FOLDERS: list[tuple[str, Callable[[Path], object], Wants]] = [
    ("its weights in a pickle", pickled, refused(KEY, "safetensors")),
    ("a shard that is not there", sharded, refused(KEY)),
    ("a shard outside", outside, either("the same weights", KEY, same=SAME)),
    ("a header of garbage", header(lambda h: b"\xff" * len(h)), refused(KEY)),
    ("a header of a list", header(lambda h: b"[]".ljust(len(h))), refused(KEY)),
    ("a header without tensors", header(lambda h: b"{}".ljust(len(h))), refused(KEY)),
    ("a header with other places", header(lambda h: h.replace(b'"data_offsets":[0,', b'"data_offsets":[9,')),
     refused(KEY)),
    ("a header of another dtype", header(lambda h: h.replace(b'"F32"', b'"Z99"')), refused(KEY)),
    ("a header of another shape", header(lambda h: re.sub(rb'"shape":\[\d', b'"shape":[9', h, count=1)), refused(KEY)),
    ("a header of 2^60 bytes", lambda m: (m / "model.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}"),
     refused(KEY)),
    ("weights that are a pointer", lambda m: (m / "model.safetensors").write_text("version https://git-lfs\n"),
     refused(KEY)),
    ("no tokenizer", lambda m: [p.unlink() for p in m.glob("tokenizer*")], refused(KEY)),
    ("a link in its place", lambda m: (m.rename(m.parent / "m"), m.symlink_to("m")), accepted("the same model", SAME)),
    ("nothing but its config", lambda m: [p.unlink() for p in m.iterdir() if p.name != "config.json"], refused(KEY)),
    ("a folder that is empty", lambda m: [p.unlink() for p in m.iterdir()], refused(KEY, "config.json")),
    ("a generation config of garbage", lambda m: spoil.garbage(m / "generation_config.json"),
     either("editing generates nothing", KEY, "generation_config", same=SAME)),
    ("a generation config of odd values", in_json("generation_config.json", spoil.put("eos_token_id", "x")),
     either("editing generates nothing", KEY, same=SAME)),
]  # fmt: skip
FILES = {"config.json": "no config.json", "model.safetensors": KEY, "tokenizer.json": KEY, "tokenizer_config.json": KEY}


def cases() -> Iterator[Case]:
    """All of them."""
    for name, change, want in WEIGHTS:
        yield spoiled(f"weights {name}", reweighted(change), want)
    for name, change, want in CONFIG:
        yield spoiled(f"a config of {name}", in_json("config.json", change), want)
    for name, file, change, want in TOKENIZER:
        chat = ["dataset.prompt_format=chat"] if "chat" in name else []
        yield spoiled(f"a tokenizer with {name}", in_json(file, change), want, *chat)
    for name, do, want in FOLDERS:
        yield spoiled(name, do, want)
    for file in FILES:
        for way in (*spoil.WAYS, spoil.endless):
            if way is spoil.flipped and file == "model.safetensors":
                continue  # other weights are another model
            harmless = either("what is left says the same", KEY) if file == "tokenizer_config.json" else refused(KEY)
            want = either("a bit more or less", KEY) if way is spoil.flipped else harmless
            yield spoiled(f"{file} {spoil.named(way)}", lambda m, w=way, f=file: w(m / f), want)
    for name, value, want in NAMES:
        yield Case("models", f"named: {name}", lambda *_, v=value: small(f"{KEY}={v}"), want)
