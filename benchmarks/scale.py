"""What a run costs as it grows: per step over 10^5 edits, and at its start over 2 x 10^6 records.

    python -m benchmarks.scale [--quick]

A tiny model writes edits of a generated file, 100 a step, without scoring: time per step, resident
memory and the size of a checkpoint after 10^3, 10^4 and 10^5 edits. Then, in processes of their own,
the time from start to the first step and the memory after twenty, for 2,000 and 2,000,000 records
(800 MB), first with an empty data cache and then with a warm one. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

import torch

from config.compose import compose_config
from config.schema import Config
from editor.cache import row_cache
from lifelong.recorder import Recorder, peak_memory
from lifelong.run import Belongs, Run, check
from lifelong.setup import Loaded, build_editor, prepare
from model import load_model
from tests.tiny import PROJECT, tiny_words

N_EDITS = 100
START_STEPS = 20
CPU = torch.device("cpu")


class Enough(Exception):
    """The steps that were to be measured are done."""


class Watcher(Recorder):
    """A recorder that is told of every step: its seconds since the last one, and its number from 1."""

    def __init__(self, run_dir: Path, cfg: Config, on_step: Callable[[int, float], None]) -> None:
        super().__init__(run_dir, cfg.wandb, "scale", {})
        self._on_step, self._steps, self._since = on_step, 0, time.perf_counter()

    def log(self, record: dict[str, Any]) -> None:
        """Record as ever, then hand over the time; what the listener does is not counted."""
        super().log(record)
        self._steps += 1
        self._on_step(self._steps, time.perf_counter() - self._since)
        self._since = time.perf_counter()


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


def config(records: Path, steps: int, cache: Path) -> Config:
    """A run of so many steps over the file, on the tiny model."""
    words = ["editor.preheat_mode=none", f"num_seq={steps}", f"dataset.n_edits={N_EDITS}", "editor.lr=1e-6"]
    words += [f"dataset.{kind}_path={records}" for kind in ("train", "valid")]
    words += [f"dataset.cache_dir={cache}", "dataset.batch_size=50", "eval.before=false", "checkpoint.every=0"]
    return compose_config(tiny_words(*words, dataset="ultraeditbench"))


def resident_mib() -> float:
    """Memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def write(cfg: Config, run_dir: Path, on_step: Callable[[Run, int, float], None]) -> None:
    """Everything that a run does up to its last step, nothing of what comes after."""
    torch.set_num_threads(1)
    check(cfg)
    prepared = prepare(cfg)
    belongs = Belongs(cfg, prepared.data)
    loaded = Loaded(load_model(cfg.model, CPU), prepared.tokenizer)
    with (
        Watcher(run_dir, cfg, lambda number, seconds: on_step(job, number, seconds)) as recorder,
        row_cache(None, CPU) as cache,
    ):
        job = Run(cfg, loaded, prepared.data, build_editor(cfg, loaded, cache, CPU), recorder, belongs)
        job.write_steps()


def measure_steps(folder: Path, edits: int) -> list[dict[str, float]]:
    """One run of so many edits; what it takes at every power of ten from 1,000."""
    seconds: list[float] = []
    found: list[dict[str, float]] = []
    marks = [10**power // N_EDITS for power in range(3, 10) if 10**power <= edits]

    def on_step(job: Run, number: int, step_seconds: float) -> None:
        seconds.append(step_seconds)
        if number in marks:
            memory = resident_mib()
            job.save()
            newest = max((job.recorder.run_dir / "checkpoints").iterdir())
            size = sum(path.stat().st_size for path in newest.iterdir())
            found.append({"edits": number * N_EDITS, **tenths(seconds), "resident_mib": memory, "checkpoint_b": size})

    write(config(generate(folder / "steps.json", edits), marks[-1], folder / "cache"), folder / "steps", on_step)
    return found


def tenths(seconds: list[float]) -> dict[str, float]:
    """The median step, and the last tenth's over the first tenth's (the first step, which warms up, left out)."""
    rest = seconds[1:]
    size = max(1, len(rest) // 10)
    ratio = statistics.median(rest[-size:]) / statistics.median(rest[:size])
    return {"step_s": statistics.median(rest), "last_over_first": ratio}


def measure_start(records: Path, count: int, cache: Path) -> dict[str, float]:
    """A process of its own, up to its twentieth step."""
    command = [sys.executable, "-m", "benchmarks.scale", "--start", str(records), str(count), str(cache)]
    done = subprocess.run(
        [*command, str(time.time())], cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=True, timeout=1800
    )
    return json.loads(done.stdout.splitlines()[-1])


def start(records: str, count: str, cache: str, began: str) -> None:
    """The process that measure_start waits for; prints its figures as JSON."""
    figures: dict[str, float] = {}

    def on_step(_: Run, number: int, __: float) -> None:
        if number == 1:
            figures["first_step_s"] = time.time() - float(began)
        if number == START_STEPS:
            raise Enough

    with tempfile.TemporaryDirectory(prefix="scale-start-") as scratch, suppress(Enough):
        write(config(Path(records), int(count) // N_EDITS, Path(cache)), Path(scratch), on_step)
    print(json.dumps(figures | {"resident_mib": resident_mib(), "peak_mib": peak_memory()["resident_mib"]}))


def measure_starts(folder: Path, counts: tuple[int, int]) -> list[dict[str, float]]:
    """Starts over a small and a large file, cold and warm."""
    found = []
    for count in counts:
        records = generate(folder / f"records{count}.json", count)
        for warm in (0, 1):
            row = {"records": count, "file_mb": records.stat().st_size / 1e6, "warm": warm}
            found.append(row | measure_start(records, count, folder / "cache"))
        records.unlink()
    return found


def table(steps: list[dict[str, float]], starts: list[dict[str, float]]) -> str:
    """The measurements for people."""
    lines = [f"{'edits':>9}{'s/step':>9}{'last/first':>12}{'resident MiB':>14}{'checkpoint kB':>15}"]
    for row in steps:
        lines.append(
            f"{row['edits']:>9}{row['step_s']:>9.4f}{row['last_over_first']:>12.3f}"
            f"{row['resident_mib']:>14.0f}{row['checkpoint_b'] / 1000:>15.1f}"
        )
    lines.append(f"\n{'records':>9}{'file MB':>9}{'cache':>7}{'first step s':>14}{'resident MiB':>14}{'peak MiB':>10}")
    for row in starts:
        lines.append(
            f"{row['records']:>9}{row['file_mb']:>9.0f}{'warm' if row['warm'] else 'cold':>7}"
            f"{row['first_step_s']:>14.1f}{row['resident_mib']:>14.0f}{row['peak_mib']:>10.0f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, then one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="10^4 edits and 100,000 records")
    parser.add_argument("--start", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.start:
        start(*args.start)
        return
    with tempfile.TemporaryDirectory(prefix="scale-") as scratch:
        starts = measure_starts(Path(scratch), (2_000, 100_000 if args.quick else 2_000_000))
        steps = measure_steps(Path(scratch), 10_000 if args.quick else 100_000)
    small, large = (row for row in starts if row["warm"])
    met = {
        "flat": steps[-1]["last_over_first"] <= 1.1,
        "first_step": large["first_step_s"] <= 20,
        "memory": large["peak_mib"] - small["peak_mib"] <= 300,
    }
    print(table(steps, starts))
    print(json.dumps({"benchmark": "scale", "quick": args.quick, "steps": steps, "starts": starts, "targets_met": met}))


if __name__ == "__main__":
    main()
