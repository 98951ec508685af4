"""What runs export and others take up: deltas, saved models asked, and trained networks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.hostile import spoil
from tests.hostile.case import Case, Wants, accepted, either, refused
from tests.hostile.clean import Clean, learned, model_copy, same_file, same_run, small
from tests.hostile.keys import HUGE, LONG
from tests.tiny import MODELS

BASE = MODELS / "tiny-llama"
FIRST, SECOND = "model.layers.1.mlp.down_proj.weight", "model.layers.2.mlp.down_proj.weight"
APPLIED = same_file("applied", "out/model.safetensors")
NETWORKS = same_run("loaded")
J, W = "delta.json", "delta.safetensors"


def described(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Another delta.json."""
    return lambda delta: spoil.edit_json(delta / J, change)


def weights(file: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    """Other tensors in that file."""

    def do(folder: Path) -> None:
        found = load_file(folder / file)
        change(found)
        save_file(found, folder / file, metadata={"format": "pt"})

    return do


def one(key: str, value: Any) -> Callable[[Path], None]:
    """Another declaration of the first tensor."""
    return described(lambda d: d["tensors"][FIRST].update({key: value}))


DELTAS: list[tuple[str, Callable[[Path], object], Wants]] = [
    ("a list", described(lambda d: [d]), refused(J)),
    ("null", lambda d: (d / J).write_text("null"), refused(J)),
    ("nested deep", lambda d: (d / J).write_text("[" * 100_000), refused(J)),
    ("another format", described(spoil.put("format", "lora")), refused(J, "lora")),
    ("version 2", described(spoil.put("version", 2)), refused(J, "2")),
    ("version of words", described(spoil.put("version", "1")), refused(J)),
    ("version true", described(spoil.put("version", True)), either("1 and true are equal", J, same=APPLIED)),
    ("dtype int8", described(spoil.put("dtype", "int8")), refused(J, "int8")),
    ("dtype 3", described(spoil.put("dtype", 3)), refused(J)),
    ("dtype of a list", described(spoil.put("dtype", ["float32"])), refused(J)),
    ("dtype auto", described(spoil.put("dtype", "auto")), refused((J, W))),
    ("another dtype", described(spoil.put("dtype", "bfloat16")), refused((J, W, "tiny-llama"))),
    ("an empty list of tensors", described(spoil.put("tensors", {})), refused(J, "no tensor")),
    ("tensors of a list", described(spoil.put("tensors", [FIRST])), refused((J, W))),
    ("tensors of null", described(spoil.put("tensors", None)), refused(J)),
    ("tensors of words", described(spoil.put("tensors", "x")), refused((J, W))),
    ("tensors of nothing", described(spoil.put("tensors", {FIRST: None})), refused((J, W))),
    ("tensors of numbers", described(spoil.put("tensors", {FIRST: 7, SECOND: 7})), refused((J, W))),
    ("a base of null", described(spoil.put("base", None)), either("the base is named", J, same=APPLIED)),
    ("a base of a number", described(spoil.put("base", 7)), either("the base is named", J, same=APPLIED)),
    ("another base", described(spoil.put("base", "/nowhere")), accepted("the base is named and checked", APPLIED)),
    ("another architecture", described(spoil.put("architecture", "GPTNeoX")), refused("GPTNeoX")),
    ("an architecture of null", described(spoil.put("architecture", None)), refused()),
    ("another config", described(spoil.put("config_sha256", "0")), either("the log says so", "config", same=APPLIED)),
    ("more than it needs", described(spoil.put("more", [1])), accepted("nothing reads it", APPLIED)),
    *((f"no {key}", described(spoil.drop(key)), refused(J, key)) for key in
      ("format", "version", "base", "architecture", "config_sha256", "dtype", "tensors")),
    ("one tensor undeclared", described(lambda d: d["tensors"].pop(FIRST) and None), refused(W, FIRST)),
    ("one tensor too many declared", described(lambda d: d["tensors"].update(x=d["tensors"][FIRST])), refused(W, "x")),
    ("another shape", one("shape", [1, 2]), refused(FIRST)),
    ("a shape of words", one("shape", "big"), refused(FIRST)),
    ("another dtype of a tensor", one("dtype", "float16"), refused(FIRST)),
    ("another hash", one("sha256", "0" * 64), refused(FIRST)),
    ("a hash of null", one("sha256", None), refused((FIRST, J))),
    ("no hash", described(lambda d: d["tensors"][FIRST].pop("sha256") and None), refused((FIRST, J))),
    ("no shape", described(lambda d: d["tensors"][FIRST].pop("shape") and None), refused((FIRST, J))),
    ("another base's hash", one("sha256_before", "0" * 64), refused(FIRST, "differs")),
    ("no base's hash", described(lambda d: d["tensors"][FIRST].pop("sha256_before") and None), refused((FIRST, J))),
    ("no tensor in the file", weights(W, dict.clear), refused(W)),
    ("one tensor missing", weights(W, lambda w: w.pop(FIRST)), refused(W, FIRST)),
    ("one tensor more", weights(W, lambda w: w.update(x=torch.ones(2))), refused(W, "x")),
    ("one tensor renamed", weights(W, lambda w: w.update({"lm_head.weight": w.pop(FIRST)})), refused(W)),
    ("one number changed", weights(W, lambda w: w[FIRST].view(-1)[3:4].add_(1)), refused(W, FIRST)),
    ("one NaN", weights(W, lambda w: w[FIRST].view(-1)[3:4].fill_(float("nan"))), refused(W, FIRST)),
    ("two tensors exchanged", weights(W, lambda w: w.update({FIRST: w[SECOND], SECOND: w[FIRST]})), refused(W)),
    ("a card that is a folder", lambda d: spoil.folder(d / "README.md"),
     either("only the card", "README", same=APPLIED)),
    ("a card that is a link outside", lambda d: ((d / "README.md").unlink(),
     (d / "README.md").symlink_to("/etc/passwd")),
     either("only the card", "README.md", same=APPLIED)),
    ("a card that is a link to itself", lambda d: spoil.loop(d / "README.md"), either("only the card", "README",
     same=APPLIED)),
    ("a card that is a pipe", lambda d: spoil.fifo(d / "README.md"), either("only the card", "README", same=APPLIED)),
    ("a card of garbage", lambda d: spoil.garbage(d / "README.md"), either("only the card", "README", same=APPLIED)),
    ("no card", lambda d: spoil.removed(d / "README.md"), accepted("a delta needs none", APPLIED)),
]  # fmt: skip
APPLY: list[tuple[str, Callable[[Path], list[Any]], Wants]] = [
    ("another base", lambda f: [MODELS / "tiny-gpt2", "delta", "out"], refused("tiny-gpt2", "GPT2")),
    ("no base", lambda f: ["nowhere", "delta", "out"], refused("nowhere")),
    ("a base that is a delta", lambda f: ["delta", "delta", "out"], refused("delta")),
    ("a base of the hub", lambda f: ["a/b", "delta", "out"], refused("a/b")),
    ("an embedded base that is none", lambda f: ["embedded:x", "delta", "out"], refused("embedded:x")),
    ("a base of 300 characters", lambda f: [LONG, "delta", "out"], refused(LONG[:40])),
    ("a delta that is a model", lambda f: [BASE, BASE, "out"], refused(J)),
    ("no delta", lambda f: [BASE, "nowhere", "out"], refused("nowhere")),
    ("a delta of 300 characters", lambda f: [BASE, LONG, "out"], refused(LONG[:40])),
    (
        "out into something",
        lambda f: [BASE, "delta", (f / "full").mkdir() or spoil.words(f / "full/a") or "full"],
        refused("OUT=full"),
    ),
    ("out into a file", lambda f: [BASE, "delta", "output.txt"], refused("OUT=output.txt")),
    ("out below a file", lambda f: [BASE, "delta", "output.txt/x"], refused(("OUT=output.txt/x", "output.txt"))),
    ("out in /proc", lambda f: [BASE, "delta", "/proc/nowhere/x"], refused(("OUT=/proc/nowhere/x", "/proc/nowhere"))),
    ("out of 300 characters", lambda f: [BASE, "delta", LONG], refused(("OUT=", LONG[:40]))),
    ("out into the delta", lambda f: [BASE, "delta", "delta"], either("a saved model may be replaced", "OUT")),
    ("too few words", lambda f: [BASE], refused("usage")),
]
WHO = "Who wrote it?"
ASK: list[tuple[str, list[str], Wants]] = [
    ("nobody", ["nowhere", WHO], refused("nowhere")),
    ("a name of 300 characters", [LONG, WHO], refused(LONG[:40])),
    ("nothing", ["saved", ""], either("an empty prompt is one", "prompt")),
    ("blank", ["saved", " "], either("a space is a token", "prompt")),
    ("20,000 words", ["saved", "why " * 20_000], refused("context")),
    ("no number of tokens", ["saved", WHO, "--max-new-tokens", "0"], refused("max-new-tokens")),
    ("tokens in words", ["saved", WHO, "--max-new-tokens", "x"], refused("max-new-tokens")),
    ("too many tokens", ["saved", WHO, "--max-new-tokens", HUGE], refused("max-new-tokens")),
    ("a million tokens", ["saved", WHO, "--max-new-tokens", "1000000"], refused(("context", "max-new-tokens"))),
    ("an unknown format", ["saved", WHO, "--format", "x"], refused("--format")),
    ("chat without a template", ["saved", WHO, "--format", "chat"], refused("chat template")),
    ("an unknown device", ["saved", WHO, "--device", "gpu"], refused("--device=gpu")),
    ("a GPU too many", ["saved", WHO, "--device", "cuda:77"], refused("--device=cuda:77")),
    ("a base that is not there", ["saved", WHO, "--base", "nowhere"], refused("nowhere")),
    ("a base of 300 characters", ["saved", WHO, "--base", LONG], refused(LONG[:40])),
    ("control characters", ["saved", "who\x1b]0;x\x07\x9b2J"], accepted("shown escaped")),
    ("a surrogate", ["saved", "who\udcff"], refused("prompt")),
]
CARDS: list[tuple[str, Callable[[Path], object]]] = [
    ("of garbage", lambda s: spoil.garbage(s / "README.md")), ("that is a folder",
     lambda s: spoil.folder(s / "README.md")),
    ("that is a link to itself", lambda s: spoil.loop(s / "README.md")),
    ("that is gone", lambda s: spoil.removed(s / "README.md")),
    ("that is a pipe", lambda s: spoil.fifo(s / "README.md")),
    ("of a list", lambda s: (s / "README.md").write_text("---\n- a\n---\n")),
    ("of broken YAML", lambda s: (s / "README.md").write_text("---\na: [\n---\n")),
    ("of a tag", lambda s: (s / "README.md").write_text("---\na: !!python/name:os.system\n---\n")),
    ("with a base of a number", lambda s: (s / "README.md").write_text("---\nedited_from: 7\n---\n")),
    ("with a base of a list", lambda s: (s / "README.md").write_text("---\nedited_from: [a]\n---\n")),
    ("with a base of nowhere", lambda s: (s / "README.md").write_text("---\nedited_from: /nowhere\n---\n")),
    ("with itself as base", lambda s: (s / "README.md").write_text("---\nedited_from: saved\n---\n")),
]  # fmt: skip
DESCRIPTIONS: list[tuple[str, Callable[[Path], object], Wants]] = [
    ("of another editor", lambda n: spoil.edit_json(n / "checkpoint.json", spoil.put("editor", "mend")),
     refused("mend")),
    ("of another rank", lambda n: spoil.edit_json(n / "checkpoint.json", spoil.put("rank", 9)), refused("rank is 9")),
    ("of no sites", lambda n: spoil.edit_json(n / "checkpoint.json", spoil.put("sites", {})), refused("sites")),
    ("of a list", lambda n: (n / "checkpoint.json").write_text("[]"), refused("checkpoint")),
    ("of null", lambda n: (n / "checkpoint.json").write_text("null"), refused("checkpoint")),
    ("of sites in words", lambda n: spoil.edit_json(n / "checkpoint.json", spoil.put("sites", "x")), refused("sites")),
    ("nested deep", lambda n: (n / "checkpoint.json").write_text("[" * 100_000), refused("checkpoint")),
    ("with a tensor too few", weights("tensors.safetensors", lambda w: w.pop(sorted(w)[0])), refused("tensors")),
    ("with a tensor too many", weights("tensors.safetensors", lambda w: w.update(x=torch.ones(2))),
     either("nothing reads it", "tensors", same=NETWORKS)),
    ("with another shape", weights("tensors.safetensors", lambda w: w.update({sorted(w)[0]: torch.ones(3, 3)})),
     refused("tensors")),
    ("with one number changed", weights("tensors.safetensors", lambda w: w[sorted(w)[0]].view(-1)[:1].add_(1)),
     refused("tensors")),
    ("with a NaN", weights("tensors.safetensors", lambda w: w[sorted(w)[0]].view(-1)[:1].fill_(float("nan"))),
     refused(("tensors", "finite"))),
]  # fmt: skip
LOAD = "editor.load_checkpoint"


def applied(name: str, do: Callable[[Path], object], want: Wants) -> Case:
    """A delta that `do` has spoiled, put into its base."""

    def make(folder: Path, clean: Clean) -> list[Any]:
        do(clean.copy("delta/saved", folder / "delta"))
        return ["-m", "exports", "apply-delta", BASE, "delta", "out"]

    return Case("deltas", name, make, want)


def networks(name: str, do: Callable[[Path], object], want: Wants) -> Case:
    """Trained networks that `do` has spoiled, loaded by a run."""

    def make(folder: Path, clean: Clean) -> list[str]:
        do(clean.copy("learned/run/checkpoint", folder / "networks"))
        return learned(f"{LOAD}=networks")

    return Case("networks", name, make, want)


def asked(name: str, do: Callable[[Path], object], words: list[str], want: Wants) -> Case:
    """A saved model, asked."""

    def make(folder: Path, clean: Clean) -> list[Any]:
        do(clean.copy("full/saved", folder / "saved"))
        os.environ["COLUMNS"] = "80"
        return ["-m", "exports", "ask", *words]

    return Case("ask", name, make, want)


def cases() -> Iterator[Case]:
    """All of them."""
    for name, do, want in DELTAS:
        yield applied(name, do, want)
    for file in (J, W):
        for way in (*spoil.WAYS, spoil.endless):
            rest = either("what is left says the same", file, same=APPLIED) if way is spoil.flipped else refused(file)
            yield applied(f"{file} {spoil.named(way)}", lambda d, w=way, f=file: w(d / f), rest)
    for name, words, want in APPLY:

        def make(folder: Path, clean: Clean, words: Callable[[Path], list[Any]] = words) -> list[Any]:
            clean.copy("delta/saved", folder / "delta")
            return ["-m", "exports", "apply-delta", *words(folder)]

        yield Case("deltas", f"apply: {name}", make, want)
    for name, said, want in ASK:
        yield asked(name, lambda s: None, said, want)
    for name, do in CARDS:
        yield asked(f"a card {name}", do, ["saved", WHO], accepted("it is asked alone where no card names a base"))
    for name, do, want in DESCRIPTIONS:
        yield networks(name, do, want)
    for file in ("checkpoint.json", "tensors.safetensors"):
        for way in spoil.WAYS:
            rest = either("what is left says the same", LOAD, same=NETWORKS) if way is spoil.flipped else refused(LOAD)
            yield networks(f"{file} {spoil.named(way)}", lambda n, w=way, f=file: w(n / f), rest)
    for name, value in [("nowhere", "nowhere"), ("a file", "/dev/null"), ("300 characters", LONG), ("a model", BASE)]:
        yield Case("networks", f"named: {name}", lambda *_, v=value: learned(f"{LOAD}={v}"), refused(LOAD))
    yield Case("deltas", "a run on a delta", _run_on, refused("model.name_or_path", "apply-delta"))
    yield Case("deltas", "saved over its base", _over, refused("model_cache_dir"))


def _run_on(folder: Path, clean: Clean) -> list[str]:
    clean.copy("delta/saved", folder / "delta")
    return small("model.name_or_path=delta")


def _over(folder: Path, _: Clean) -> list[str]:
    model = model_copy(folder)
    words = ["model_cache=true", "export=delta"]
    return small(f"model.name_or_path={model}", f"model_cache_dir={model}", *words)
