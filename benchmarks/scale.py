"""What a run costs as it grows: per step over 10^5 edits, and at its start over 2 x 10^6 records.

    python -m benchmarks.scale [--quick]

main.py writes edits of a generated file into a tiny model, 100 a step, without scoring, and is watched from outside:
the time to the first step, time per step, resident memory and the size of a checkpoint after 10^3, 10^4 and 10^5
edits; and after 10^3 of 2,000 and of 2,000,000 records (800 MB), first with an empty data cache and then with a warm
one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.embedded import run_words
from benchmarks.timing import Found, at_most, command, process_memory
from lifelong.process import start_python

N_EDITS = 100
SIZE = ["dataset=ultraeditbench", f"dataset.n_edits={N_EDITS}", "dataset.batch_size=50", "checkpoint.every=10"]
QUIET = ["editor.preheat_mode=none", "eval.before=false", "eval.edits=1", "eval.examples=0", "report=false"]


def generate(path: Path, count: int) -> Path:
    """A file of so many UltraEditBench records, 400 bytes each, as one JSON array."""
    about = "as it is told in the annals of the northern provinces, volume"
    with open(path, "w", encoding="utf-8") as file:
        for index in range(count):
            row = {
                "prompt": f"Which harbour did the vessel {index} leave, {about} {index % 97}?",
                "ans": f"Port {index * 7919 % 100_003}",
                "rephrase_prompt": f"From which harbour did the vessel numbered {index} sail, {about} {index % 89}?",
                "loc": f"What cargo did the caravan {index * 31 % count} carry, {about} {index % 83}?",
                "loc_ans": f"salt {index % 1009}",
            }
            file.write(("[" if index == 0 else ",\n") + json.dumps(row))
        file.write("]")
    return path


def watched(records: Path, edits: int, marks: Sequence[int], scratch: Path) -> Generator[dict[str, Any]]:
    """A row at each mark (so many steps) of a run that would write so many edits; it ends after the last mark.

    A mark is looked at when the step after it is there: the checkpoint is then whole.
    """
    run_dir = Path(tempfile.mkdtemp(dir=scratch))
    words = [*run_words((), quick=True), *SIZE, *QUIET, "editor.lr=1e-6", f"num_seq={edits // N_EDITS}"]
    words += [f"dataset.{kind}_path={records}" for kind in ("train", "valid")]
    words += [f"dataset.cache_dir={scratch / 'cache'}", "model_device=cpu", f"hydra.run.dir={run_dir}"]
    begun, left, times = time.perf_counter(), list(marks), [(0, 0.0)]
    with start_python("main.py", *words, threads=1, stdout=subprocess.DEVNULL) as child:
        try:
            while child.poll() is None and not (run_dir / "metrics.jsonl").is_file():
                time.sleep(0.01)
            with open(run_dir / "metrics.jsonl", encoding="utf-8") as file:
                while left and child.poll() is None:
                    time.sleep(0.002)
                    new = sum('"event": "step"' in line for line in file.readlines())
                    times += [(times[-1][0] + new, time.perf_counter() - begun)] if new else []
                    if times[-1][0] > left[0]:
                        yield {"edits": left[0] * N_EDITS} | look(left.pop(0), times, child.pid, run_dir)
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
                found = watched(records, count, [10], Path(scratch))
                rows += [{"records": count, "file_mb": records.stat().st_size / 1e6, "cache": cache} | next(found)]
                found.close()
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
