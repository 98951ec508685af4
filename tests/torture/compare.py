"""What a killed run was doing, and in what two finished runs differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from lifelong import resume
from tests.test_resume import last_state, numbers

EDITS = 48


def metric_lines(run_dir: Path) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl."""
    path = run_dir / "metrics.jsonl"
    whole = path.read_text().split("\n")[:-1] if path.is_file() else []
    return [json.loads(line) for line in whole]


def phase(run_dir: Path, learned: bool) -> str:
    """What a killed run was doing, from what it has left."""
    if not (run_dir / ".hydra" / "overrides.yaml").is_file():
        return "before Hydra"
    if not (run_dir / "metrics.jsonl").is_file():
        return "loading"
    if (run_dir / "results.json").is_file():
        return "after the end"
    if list((run_dir / "checkpoints").glob(".0*")):
        return "checkpoint"
    lines, found = metric_lines(run_dir), resume.newest(run_dir)
    if not lines:
        return "evaluate before"
    last, trains = lines[-1], learned and not (found and found[1]["state"]["training"]["done"])
    if last["event"] == "evaluate":
        return "results" if last["edits"] else "training" if trains else "downstream"
    if last["event"] == "over_time":
        return "checkpoint" if last["step"] else "downstream"
    if last["event"] == "downstream":
        return "final evaluation" if last["edits"] == EDITS else "step"
    if last["event"] == "train":
        return "training" if trains else "downstream"
    return "downstream" if last["phase"] == "edit" else "warm-up"


def compare(whole: Path, other: Path, *, forked: bool = True) -> list[str]:
    """Every way in which two finished runs differ, but for clocks and places.

    Forked runs have their parent's state of torch's own generator, which nothing draws from; others have each one.
    """
    found = []
    for name, one, two in zip(("results.json", "metrics.jsonl"), numbers(whole), numbers(other), strict=True):
        if one != two:
            found.append(f"{name} differs")
    if (whole / "edits.jsonl").read_bytes() != (other / "edits.jsonl").read_bytes():
        found.append("edits.jsonl differs")
    found += [f"{name} differs" for name in differing_predictions(whole, other)]
    state, again = last_state(whole), last_state(other)
    if state.keys() != again.keys():
        return [*found, f"tensors {sorted(state.keys() ^ again.keys())} are in one checkpoint only"]
    names = [name for name in state if forked or name != "rng"]
    differing = [name for name in names if not torch.equal(state[name], again[name])]
    if differing:
        distance = max(_distance(state[name], again[name]) for name in differing)
        found.append(f"{len(differing)} tensors differ, {differing[0]} first, by up to {distance:.1e} of their norm")
    return found


def differing_predictions(whole: Path, other: Path) -> list[str]:
    """Names of downstream prediction files that are not byte for byte the same in both runs."""
    one, two = ({path.name: path.read_bytes() for path in run.rglob("*_sst.jsonl")} for run in (whole, other))
    return sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))


def largest_distance(whole: Path, other: Path) -> float:
    """The largest distance between two finished runs' tensors, as a share of the tensor's norm."""
    state, again = last_state(whole), last_state(other)
    return max(_distance(state[name], again[name]) for name in state if name != "rng")


def _distance(one: torch.Tensor, two: torch.Tensor) -> float:
    return float((one.double() - two.double()).norm() / one.double().norm().clamp_min(1e-30))


def tree(folder: Path) -> dict[str, bytes]:
    """The content of every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
