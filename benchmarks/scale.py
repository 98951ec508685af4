"""What a run costs as it grows, main.py watched from outside: python -m benchmarks.scale."""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.embedded import run_words
from benchmarks.timing import Found, at_most, command, process_memory
from config.check import RunError
from lifelong.process import start_python

N_EDITS = 100
SIZE = ["dataset=ultraeditbench", f"dataset.n_edits={N_EDITS}", "dataset.batch_size=50", "checkpoint.every=10"]
QUIET = ["editor.preheat_mode=none", "eval.before=false", "eval.edits=1", "eval.examples=0", "report=false"]


def generate(path: Path, count: int) -> Path:
    """A file of so many UltraEditBench records, 400 bytes each, as one JSON array."""
    about = "as it is told in the annals of the northern provinces, volume"
    with open(path, "w", encoding="utf-8") as file:
        for index in range(count):
            asked = f"Which harbour did the vessel {index} leave, {about} {index % 97}?"
            again = f"From which harbour did the vessel numbered {index} sail, {about} {index % 89}?"
            other = f"What cargo did the caravan {index * 31 % count} carry, {about} {index % 83}?"
            row = {"prompt": asked, "ans": f"Port {index * 7919 % 100_003}", "rephrase_prompt": again, "loc": other}
            file.write(("[" if index == 0 else ",\n") + json.dumps(row | {"loc_ans": f"salt {index % 1009}"}))
        file.write("]")
    return path


def watched(records: Path, edits: int, marks: Sequence[int], scratch: Path) -> Iterator[dict[str, Any]]:
    """A row at each mark (so many steps) of a run that would write so many edits; it ends after the last mark.

    A mark is looked at when the step after it is there: the checkpoint is then whole.
    """
    run_dir = Path(tempfile.mkdtemp(dir=scratch))
    words = [*run_words((), quick=True), *SIZE, *QUIET, "editor.lr=1e-6", f"num_seq={edits // N_EDITS}"]
    words += [f"dataset.{kind}_path={records}" for kind in ("train", "valid")]
    words += [f"dataset.cache_dir={scratch / 'cache'}", "model_device=cpu", f"hydra.run.dir={run_dir}"]
    begun, times, metrics = time.perf_counter(), [(0, 0.0)], run_dir / "metrics.jsonl"
    with start_python("main.py", *words, threads=1, stdout=subprocess.DEVNULL) as child:
        try:
            while child.poll() is None and not metrics.is_file():
                time.sleep(0.01)
            with open(metrics, encoding="utf-8") as file:
                for mark in marks:
                    while times[-1][0] <= mark and child.poll() is None:
                        time.sleep(0.002)
                        new = sum('"event": "step"' in line for line in file.readlines())
                        times += [(times[-1][0] + new, time.perf_counter() - begun)] if new else []
                    if times[-1][0] <= mark:
                        raise RunError(f"main.py ended before step {mark}; what it said is above")
                    yield {"edits": mark * N_EDITS} | look(mark, times, child.pid, run_dir)
        finally:
            child.kill()


def look(mark: int, times: list[tuple[int, float]], pid: int, run_dir: Path) -> dict[str, float]:
    """What so many steps took: the median step, and the last tenth's over the first tenth's (but the first step)."""
    counts, seconds = np.array(times).T
    reached = np.interp(np.arange(1, mark + 1), counts, seconds)
    steps = np.diff(reached)
    tenth = max(1, len(steps) // 10)
    checkpoint = max((run_dir / "checkpoints").glob("[0-9]*"))
    return {
        "first_step_s": reached[0],
        "step_s": np.median(steps),
        "last_over_first": np.median(steps[-tenth:]) / np.median(steps[:tenth]),
        "resident_mib": process_memory(pid, "VmRSS"),
        "peak_mib": process_memory(pid, "VmHWM"),
        "checkpoint_kb": sum(path.stat().st_size for path in checkpoint.iterdir()) / 1000,
    }


def measure(args: argparse.Namespace, device: torch.device) -> Found:
    """Starts over a small and a large file, cold and warm; then one long run."""
    rows, edits = list[dict[str, Any]](), 10_000 if args.quick else 100_000
    with tempfile.TemporaryDirectory(prefix="scale-") as scratch:
        for count in (2_000, 100_000 if args.quick else 2_000_000):
            records = generate(Path(scratch) / "starts.json", count)
            for cache in ("cold", "warm"):
                about = {"records": count, "file_mb": records.stat().st_size / 1e6, "cache": cache}
                rows += [about | row for row in watched(records, count, [10], Path(scratch))]
        records = generate(Path(scratch) / "steps.json", edits + N_EDITS)
        marks = [10**power // N_EDITS for power in range(3, 10) if 10**power <= edits]
        rows += watched(records, edits + N_EDITS, marks, Path(scratch))
    small, large = (row for row in rows if row.get("cache") == "warm")
    targets = {
        "last tenth of the steps over the first": at_most(rows[-1]["last_over_first"], 1.1),
        "seconds to the first step": at_most(large["first_step_s"], 20),
        "MiB more than with 2,000 records": at_most(large["peak_mib"] - small["peak_mib"], 300),
    }
    table = pd.DataFrame(rows)
    return Found(table, [str(column) for column in table], {}, targets)


main = command("scale", __doc__, measure)

if __name__ == "__main__":
    main()
