"""Another thread count at resume: the rounding of a sum may change with it, and by how much."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.tiny import MODELS, PROJECT
from tests.torture.bench import Bench, Lane, Outcome
from tests.torture.compare import compare, largest_distance, phase
from tests.torture.process import Child, next_words

TOLERANCE = 1e-4  # of a tensor's norm: beyond it is no rounding
SHORT = ["num_seq=3", "downstream_eval_steps=3"]
# the published floor of the whitening lets rounding grow: up to 1.5e-4 was seen with it
FLOOR = ["editor.whitening_floor=1e-2", "editor.whitening_floor_mode=relative"]


def wider_model(folder: Path) -> Path:
    """A random Llama with sums long enough for threads to share, and tiny-llama's tokenizer."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=700, hidden_size=256, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, bos_token_id=1, eos_token_id=2, max_position_embeddings=512,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    for path in (MODELS / "tiny-llama").glob("tokenizer*"):
        shutil.copy(path, folder)
    return folder


def threads(bench: Bench, kills: int) -> list[Outcome]:
    """Runs started with one thread and resumed with two; equal, or different in the last digits."""
    outcome, equal, worst = Outcome("1 thread, then 2"), 0, 0.0
    more = [*SHORT, f"model.name_or_path={wider_model(bench.folder / 'model')}"]
    for index, moment in enumerate(bench.moments(kills, 1.0)):
        editor = (bench.editors[0], bench.editors[-1])[index % 2]  # of every editor a whole run would be dear
        argv = bench.argv(editor, *more, *(FLOOR if editor == "stableedit" else []))
        whole, seconds = bench.whole(f"wider {editor}", argv, outcome)
        lane = Lane(argv, bench.fresh("threads") / "run", editor)
        if Child(next_words(argv, lane.run_dir), lane.run_dir.parent).end(moment * seconds) == 0:
            shutil.rmtree(lane.run_dir)
        outcome.phases.append(phase(lane.run_dir, lane.trains))
        outcome.runs, outcome.resumed = outcome.runs + 1, outcome.resumed + 1
        words = [sys.executable, str(PROJECT / "main.py"), *next_words(argv, lane.run_dir)]
        env = os.environ | {"OMP_NUM_THREADS": "2"}
        done = subprocess.run(words, cwd=lane.run_dir.parent, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            outcome.differences.append(f"{editor}: ended with {done.returncode}: {done.stderr[-300:]}")
            continue
        equal += not compare(whole, lane.run_dir, forked=False)
        distance = largest_distance(whole, lane.run_dir)
        worst = max(worst, distance)
        if distance > TOLERANCE:
            outcome.differences.append(f"{editor} {lane.run_dir}: weights or statistics differ by {distance:.1e}")
    outcome.notes.append(
        f"{equal} of {outcome.runs} bitwise equal; largest distance of a tensor {worst:.1e} of its norm"
    )
    return [outcome]
