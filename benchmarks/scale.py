"""What a run costs as it grows, main.py watched from outside: python -m benchmarks.scale."""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.inputs import run_words
from benchmarks.timing import Found, command, process_memory
from config.check import RunError
from lifelong.process import start_python

N_EDITS = 100
SIZE = ["dataset=ultraeditbench", f"dataset.n_edits={N_EDITS}", "dataset.batch_size=50", "checkpoint.every=10"]
QUIET = ["editor.preheat_mode=none", "eval.before=false", "eval.edits=1", "eval.examples=0", "report=false"]


def generate(path: Path, count: int) -> Path:
    """A file of so many UltraEditBench records, 400 bytes each, as one JSON array."""
    with open(path, "w", encoding="utf-8") as file:
        for index in range(count):
            asked = f"harbour did the vessel {index} leave, as it is told in the annals of the northern provinces?"
            row = {"prompt": f"Which {asked}", "ans": f"Port {index * 7919 % 100_003}"}
            row |= {"rephrase_prompt": f"Do you know which {asked}", "loc": f"Which inland {asked}", "loc_ans": "none"}
            file.write(("," if index else "[") + json.dumps(row))
        file.write("]")
    return path


def step_times(metrics: Path, child: subprocess.Popen[str]) -> Iterator[float]:
    """Seconds from here to each step of a run, as its lines come."""
    begun, seen = time.perf_counter(), 0
    while child.poll() is None:
        steps = metrics.read_bytes().count(b'"event": "step"') if metrics.is_file() else 0
        yield from [time.perf_counter() - begun] * (steps - seen)
        seen = steps
        time.sleep(0.005)


def watched(records: Path, count: int, steps: int, scratch: Path) -> dict[str, float]:
    """What so many steps took of a run that would write all `count` records; it is ended then."""
    run_dir = Path(tempfile.mkdtemp(dir=scratch))
    words = [*run_words((), quick=True), *SIZE, *QUIET, "editor.lr=1e-6", f"num_seq={count // N_EDITS}"]
    words += [f"dataset.{kind}_path={records}" for kind in ("train", "valid")]
    words += [f"dataset.cache_dir={scratch / 'cache'}", "model_device=cpu", f"hydra.run.dir={run_dir}"]
    with start_python("main.py", *words, threads=1, stdout=subprocess.DEVNULL) as child:
        try:
            times = list(islice(step_times(run_dir / "metrics.jsonl", child), steps))
            if len(times) < steps:
                raise RunError(f"main.py ended before step {steps}; what it said is above")
            return {"records": count, **paces(times), "peak_mib": process_memory(child.pid, "VmHWM")}
        finally:
            child.kill()


def paces(times: Sequence[float]) -> dict[str, float]:
    """The median step, and the last tenth's over the first tenth's (but the first step)."""
    each = np.diff(times)
    tenth = max(1, len(each) // 10)
    change = np.median(each[-tenth:]) / np.median(each[:tenth])
    return {"edits": len(times) * N_EDITS, "first_s": times[0], "step_s": np.median(each), "last_over_first": change}


def measure(args: argparse.Namespace, device: torch.device) -> Found:
    """Starts over a small and a large file, cold and warm; then one long run."""
    large, edits = (100_000, 10_000) if args.quick else (2_000_000, 100_000)
    rows = {}
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        scratch = Path(folder)
        for size, count in {"small": 2_000, "large": large}.items():
            records = generate(scratch / "starts.json", count)
            for cache in ("cold", "warm"):
                rows[f"{size} file, {cache}"] = watched(records, count, 10, scratch)
        records = generate(scratch / "steps.json", edits + N_EDITS)
        rows["long run"] = watched(records, edits + N_EDITS, edits // N_EDITS, scratch)
    table = pd.DataFrame(rows).T.rename_axis("run")
    small, large_file, long = (table.loc[run] for run in ("small file, warm", "large file, warm", "long run"))
    figures = {"last_over_first": long["last_over_first"], "first_step_s": large_file["first_s"]}
    return table, figures | {"mib_more": large_file["peak_mib"] - small["peak_mib"]}


main = command(measure, last_over_first=("at most", 1.1), first_step_s=("at most", 20.0), mib_more=("at most", 300.0))

if __name__ == "__main__":
    main()
