"""Editing at the shapes of Mistral-7B, Llama-3-8B and Qwen2.5-7B, with random weights: python -m benchmarks.gpu.

Nothing is fetched. On a CPU the same code runs at a small shape. A step by phase against the plain way in one process,
the whitening's solvers, scoring, peak memory, and what 20,000 edits with both evaluations would take. With --tests the
tests marked gpu run first.
"""

from __future__ import annotations

import argparse
import gc
import random
import string
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import pandas as pd
import torch
from torch.utils.benchmark.utils.timer import timer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from benchmarks.inputs import random_statistics, tiny_model
from benchmarks.plain import plain_capture, plain_step
from benchmarks.timing import Found, command, race
from config.compose import compose_config
from config.errors import RunError
from editor.base import Editor
from editor.capture import tokens_of
from editor.subspace import subspace_root
from lifelong import Fact, Session
from lifelong.process import run_python
from nets import inverse_root

N_EDITS, PROMPT, ANSWER = 100, 14, 2  # letters, each a token of the byte tokenizer
LONG = 20_000


@dataclass(frozen=True)
class Shape:
    """A model's architecture; sites are those of its preset, unless they are given."""

    kind: str
    size: dict[str, int]
    preset: str = ""
    sites: tuple[str, ...] = ()


SHAPES = {
    "mistral-7b": Shape(
        "mistral",
        {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
         "num_key_value_heads": 8, "vocab_size": 32768}, "mistral-7b"),
    "llama-3-8b": Shape(
        "llama",
        {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
         "num_key_value_heads": 8, "vocab_size": 128256}, "llama-3-instruct"),
    "qwen2.5-7b": Shape(
        "qwen2",
        {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
         "num_key_value_heads": 4, "vocab_size": 152064}, "qwen2.5-7b"),
}  # fmt: skip
SMALL = Shape(
    "llama",
    {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
     "num_key_value_heads": 2, "vocab_size": 512}, "", ("model.layers.{2-3}.mlp.down_proj",))  # fmt: skip


def facts(count: int, seed: int) -> list[Fact]:
    """Made-up edits of as many tokens as real ones have."""
    draw = random.Random(seed)

    def word(letters: int) -> str:
        return "".join(draw.choices(string.ascii_lowercase, k=letters))

    return [
        Fact(word(PROMPT), word(ANSWER), rephrase=[word(PROMPT)], unrelated=[(word(PROMPT), word(ANSWER))])
        for _ in range(count)
    ]


def built(shape: Shape, device: torch.device) -> PreTrainedModel:
    """The model with random weights, made on the device; bfloat16 on a GPU."""
    config = AutoConfig.for_model(shape.kind, **shape.size)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with device:
        return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def phases(session: Session, edits: Sequence[Fact], rounds: int) -> tuple[pd.DataFrame, dict[str, float]]:
    """Times of a step and of the plain way, and of the phases of ours in the median."""
    editor, steps = session.editor, list[dict[str, float]]()
    assert isinstance(editor, Editor)
    saved = {name: tensor.clone() for name, tensor in editor.state_tensors().items()}
    batches = session.batches([fact.edit(row) for row, fact in enumerate(edits)]).edit
    ways: dict[str, Callable[[], Any]] = {
        "plain": lambda: plain_step(editor, plain_capture(editor, batches)),
        "ours": lambda: steps.append(session.edit(edits).seconds),
    }
    # the timer waits for a GPU; nothing is kept of the edits, which are written again and again
    with patch("time.perf_counter", timer), patch.object(editor, "inputs", tokens_of):
        times, _ = race(ways, rounds, prepare=lambda _: editor.load_state_tensors(saved))
    return times, {str(name): float(s) for name, s in pd.DataFrame(steps[-rounds:]).median().items()}


def solvers(d_k: int, d_v: int, device: torch.device) -> dict[str, float]:
    """Seconds of a whole decomposition, and of a search that goes on from one."""
    statistics = random_statistics(d_k, d_v, device)
    covariance_VV = statistics.covariance()
    _, basis_VC = subspace_root(covariance_VV, 1e-6, rows=N_EDITS * ANSWER)
    ways: dict[str, Callable[[], Any]] = {
        "eigh": lambda: inverse_root(covariance_VV, 1e-6),
        "subspace": lambda: subspace_root(covariance_VV, 1e-6, basis_VC=basis_VC, rows=N_EDITS * ANSWER),
    }
    return {str(way): float(s) for way, s in race(ways, 1, warm_up=0)[0]["s"].items()}


def of_model(shape: Shape, editor: str, device: torch.device, args: argparse.Namespace) -> dict[str, Any]:
    """A row of the table: one model under one editor."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    model, tokenizer = built(shape, device), AutoTokenizer.from_pretrained(tiny_model().name)
    sites = list(shape.sites) or compose_config([f"model={shape.preset}", "dataset=zsre"]).model.edit_modules
    count = 8 if args.quick else N_EDITS
    session = Session.load(model, tokenizer=tokenizer, editor=editor, sites=sites, undo_gib=0)
    d_k, d_v = session.editor.sites[0].shape
    for seed in range(3):
        session.warm_up(facts(count, seed))
    row: dict[str, Any] = {"sites": len(session.editor.sites), "d_k": d_k, "d_v": d_v}
    if editor == "stableedit":
        times, parts = phases(session, facts(count, 9), args.rounds)
        row |= {"plain_s": times["s"]["plain"], "step_s": times["s"]["ours"]}
        row |= {f"{name}_s": seconds for name, seconds in parts.items()} | solvers(d_k, d_v, device)
    else:
        row["step_s"] = race({editor: lambda: session.edit(facts(count, 9))}, args.rounds)[0]["s"][editor]
    begun = timer()
    session.score(facts(count, 9))
    row["score_s"] = timer() - begun
    begun = timer()
    for seed in range(10, 10 + args.steps):
        session.edit(facts(count, seed))
    row["edits_per_s"] = args.steps * count / (timer() - begun)
    row[f"{LONG}_edits_min"] = LONG * (1 / row["edits_per_s"] + 2 * row["score_s"] / count) / 60
    if device.type == "cuda":
        row["peak_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    return row


def measure(args: argparse.Namespace, device: torch.device) -> Found:
    """A row for each model and editor; what does not fit into memory says so."""
    figures: dict[str, Any] = {}
    if args.tests:
        try:
            figures["tests"] = run_python("-m", "pytest", "-q", "-m", "gpu").strip().splitlines()[-1]
        except RunError as error:
            figures["tests"] = str(error).splitlines()[-1]
        print(figures["tests"], file=sys.stderr)
    small = args.quick or device.type == "cpu"
    rows = {}
    for name, shape in ({"small": SMALL} if small else {name: SHAPES[name] for name in args.models}).items():
        for editor in args.editors:
            print(f"{name}, {editor}", file=sys.stderr, flush=True)
            try:
                rows[name, editor] = of_model(shape, editor, device, args)
            except torch.OutOfMemoryError as error:
                rows[name, editor] = {"failed": str(error).partition(". ")[0]}
            gc.collect()
            torch.cuda.empty_cache()
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["model", "editor"]), figures


OPTIONS: dict[str, dict[str, Any]] = {
    "--models": {"nargs": "+", "choices": SHAPES, "default": list(SHAPES), "help": "some of them"},
    "--editors": {"nargs": "+", "default": ["stableedit", "margin"], "help": "default: stableedit margin"},
    "--steps": {"type": int, "default": 10, "help": "steps of 100 edits, end to end (default 10)"},
    "--tests": {"action": "store_true", "help": "run the tests marked gpu first"},
}
main = command(measure, 3, OPTIONS)

if __name__ == "__main__":
    main()
