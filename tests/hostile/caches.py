"""Caches that are spoiled, folders that cannot be written, full disks, a home that is none; reports and sweeps."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.hostile import spoil
from tests.hostile.case import Case, Differences, Wants, accepted, either, refused
from tests.hostile.clean import SST, Clean, same_run, small
from tests.hostile.keys import LONG

ANEW = "what is no cache of this program's is measured anew"
CACHES: dict[str, tuple[str, list[str], tuple[str, ...]]] = {
    "before": ("eval.cache_dir", [], ("lines.jsonl", "totals.json", "reference.safetensors", "manifest.json")),
    "abilities": ("eval.cache_dir", SST, ("base_glue.json", "base_sst.jsonl", "manifest.json")),
    "frozen": ("model.frozen_cache_dir", [], ("states.bin", "index.bin", ".lock")),
}
"""A clean run's name: the key of its cache, its further words, the cache's files."""
PUT: list[tuple[str, Callable[[Path], object]]] = [
    ("a file", lambda p: p.write_text("")), ("below a file", lambda p: None), ("in /proc", lambda p: None),
    ("a link to itself", lambda p: p.symlink_to(p)), ("a pipe", os.mkfifo),
    ("of 300 characters", lambda p: None), ("a link to nowhere", lambda p: p.symlink_to("/proc/nowhere")),
    ("of a user that is none", lambda p: None),
]  # fmt: skip
NAMES = {"below a file": "output.txt/x", "in /proc": "/proc/nowhere/x", "of 300 characters": LONG,
         "of a user that is none": "'~nobody0/x'"}  # fmt: skip
FOLDERS: dict[str, tuple[str, list[str]]] = {
    "eval.cache_dir": ("", []),
    "editor.cache_dir": ("", []),
    "model.frozen_cache_dir": ("", []),
    "model_cache_dir": ("", ["model_cache=true"]),
    "hydra.run.dir": ("", []),
    "model.embedded_cache_dir": ("", ["model.name_or_path=embedded:smollm2-135m"]),
    "dataset.cache_dir": ("large", []),
}


def small_files_are_large(_: Path) -> None:
    """Let what is known of large files be kept for every file."""
    import data.source

    data.source.LARGE = 0


def full_disk(size: int) -> Callable[[Path], None]:
    """No file may grow beyond `size` bytes: what a full disk does to a program, but for the error's number."""

    def before(_: Path) -> None:
        import editor.cache

        editor.cache.IN_MEMORY = 0  # rows too go to files
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return before


def no_home(_: Path) -> None:
    """A home that cannot be written."""
    os.environ["HOME"] = "/proc/nowhere"


def same_cached(clean_name: str) -> Differences:
    """A comparison with the run that made the cache; states keep the rounding of the batch in which they came."""
    return same_run(clean_name, near=1e-4 if clean_name == "frozen" else 0.0)


def spoiled(clean_name: str, file: str, way: spoil.Spoil) -> Case:
    """A run that finds its cache spoiled."""
    key, words, _ = CACHES[clean_name]
    same = same_cached(clean_name)

    def make(folder: Path, clean: Clean) -> list[str]:
        cache = clean.copy(f"{clean_name}/cache", folder / "cache")
        inner = next(path for path in cache.glob(f"{clean_name}-*") if path.is_dir())
        way(inner / file)
        return small(*words, f"{key}=cache")

    want = either(ANEW, key, same=same) if clean_name == "frozen" else accepted(ANEW, same)
    return Case("caches", f"{clean_name} {file} {spoil.named(way)}", make, want)


def misplaced(key: str, name: str, put: Callable[[Path], object]) -> Case:
    """A run whose cache's place cannot be a folder."""
    large, words = FOLDERS[key]

    def make(folder: Path, _: Clean) -> list[str]:
        put(folder / "place")
        return [word for word in small(*words) if not word.startswith(f"{key}=")] + [
            f"{key}={NAMES.get(name, 'place')}"
        ]

    want = refused(key) if not large else accepted("a cache is a help, not a need", same_run("small"))
    if (name == "a link to nowhere" or name.endswith("none")) and not large:
        want = either("a folder is made there", key)
    if large and name in NAMES:
        want = either("a cache is a help, not a need", key, same=same_run("small"))
    return Case("folders", f"{key} {name}", make, want, small_files_are_large if large else None)


DISKS: list[tuple[str, int, list[str], Wants]] = [
    ("at the checkpoint", 200_000, ["checkpoint.every=1"], either("what cannot be kept is said", "checkpoint")),
    ("at the cache", 6_000, ["eval.cache_dir=cache"], refused(("eval.cache_dir", "hydra.run.dir"))),
    (
        "at the rows",
        30_000,
        ["editor.cache_dir=rows", "checkpoint.every=0", "eval.before=false"],
        refused("editor.cache_dir"),
    ),
    (
        "at the states",
        30_000,
        ["model.frozen_cache_dir=states", "checkpoint.every=0", "eval.before=false"],
        either("no state is kept", ("model.frozen_cache_dir", "hydra.run.dir")),
    ),
    ("at the model", 300_000, ["model_cache=true", "model_cache_dir=saved"], refused("model_cache_dir")),
    (
        "at the report",
        15_000,
        ["report=true", "checkpoint.every=0", "eval.before=false"],
        either("a report takes nothing from a run", "report"),
    ),
]
REPORTED = (
    "results.json",
    "metrics.jsonl",
    "status.json",
    "edits.jsonl",
    ".hydra/config.yaml",
    ".hydra/overrides.yaml",
)
NOTED = "what cannot be read is noted, the rest is shown"
RESULTS: list[tuple[str, str, str]] = [
    ("a list", "results.json", "[]"), ("null", "results.json", "null"), ("words", "results.json", '"x"'),
    ("of nothing", "results.json", "{}"), ("metrics of nothing", "results.json", '{"metrics": [{}], "ES": 1}'),
    ("metrics of words", "results.json", '{"metrics": "x", "pre": 7, "config": []}'),
    ("null numbers", "results.json", '{"metrics": [{"metric": "ES", "value": null, "before": null}], "ES": null}'),
    ("numbers in words", "results.json", '{"metrics": [{"metric": "ES", "value": "high"}], "counts": 3}'),
    ("a NaN", "results.json", '{"metrics": [{"metric": "ES", "value": NaN}], "ES": NaN}'),
    ("an unknown metric", "results.json", '{"metrics": [{"metric": "<script>", "value": 1}]}'),
    ("deep", "results.json", "[" * 100_000),
    ("lines of lists", "metrics.jsonl", "[]\n7\nnull\n"), ("lines without event", "metrics.jsonl", "{}\n"),
    ("lines of odd values", "metrics.jsonl", '{"event": "over_time", "edits": "x", "sample": 3}\n'),
    ("lines of lists as events", "metrics.jsonl", '{"event": ["a"]}\n{"event": null}\n'),
    ("lines without numbers", "metrics.jsonl", '{"event": "step"}\n{"event": "evaluate"}\n{"event": "over_time"}\n'),
    ("a status of a list", "status.json", "[]"),
    ("a status of odd values", "status.json", '{"state": 7, "error": [1]}'),
    ("overrides of a mapping", ".hydra/overrides.yaml", "a: 1\n"),
    ("a config of a list", ".hydra/config.yaml", "- a\n"),
    ("facts of odd values", "edits.jsonl", '{"index": "x"}\n[]\n'),
]  # fmt: skip
OUTS: list[tuple[str, str, Wants]] = [
    ("a file", "output.txt", refused("output.txt")), ("below a file", "output.txt/x", refused("output.txt")),
    ("in /proc", "/proc/nowhere/x", refused("/proc/nowhere")), ("of 300 characters", LONG, refused(LONG[:40])),
    ("the run itself", "run", either("the page stands beside its records", "run")),
]  # fmt: skip


def report(name: str, do: Callable[[Path], object], want: Wants, *words: str) -> Case:
    """The report of a finished run that `do` has spoiled."""

    def make(folder: Path, clean: Clean) -> list[Any]:
        run = clean.copy("reported/run", folder / "run")
        shutil.rmtree(run / "report")
        do(run)
        return ["-m", "report", "run", *words]

    return Case("reports", name, make, want)


def cases() -> Iterator[Case]:
    """All of them."""
    for name, (_, _, files) in CACHES.items():
        for file in files:
            for way in spoil.WAYS:
                if (file == ".lock" and way is not spoil.folder) or (name == "abilities" and way in spoil.WAYS[4:7]):
                    continue
                yield spoiled(name, file, way)
    for key in FOLDERS:
        for name, put in PUT:
            yield misplaced(key, name, put)
    for name, size, words, want in DISKS:
        yield Case("folders", f"a full disk {name}", lambda *_, w=words: small(*w), want, full_disk(size))
    home = [word for word in small() if not word.startswith("eval.cache_dir")]
    yield Case("folders", "a home that is none", lambda *_: home, either("nothing is kept", "cache_dir"), no_home)
    for file in REPORTED:
        for way in spoil.WAYS:
            yield report(f"{file} {spoil.named(way)}", lambda r, w=way, f=file: w(r / f), either(NOTED, file))
    for name, file, content in RESULTS:
        yield report(f"{file}: {name}", lambda r, f=file, c=content: (r / f).write_text(c), either(NOTED, file))
    for name, out, want in OUTS:
        yield report(f"out {name}", lambda r: None, want, "--out", out)
