"""The facts that earlier runs wrote into a model: kept from run to run, and asked again before and after each."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from config.compose import typed_config
from data.base import Edit
from data.fields import RowReader
from data.source import RecordFile, locate
from editor.registry import editor_class
from files import regular, sha256_of
from lifelong.answers import Answered
from report.metrics import Tally

log = logging.getLogger(__name__)

METRIC = "ES_earlier"


@dataclass(frozen=True, slots=True)
class Written:
    """What a run or a session wrote: its folder, how many edits in how many steps, and facts [prompt, answer]."""

    run: str
    edits: int
    steps: int
    facts: list[list[str]]

    def sample(self, size: int, seed: int) -> Written:
        """The same with at most `size` of the facts, drawn from the seed, in order."""
        chosen = sorted(random.Random(seed).sample(range(len(self.facts)), min(size, len(self.facts))))
        return replace(self, facts=[self.facts[index] for index in chosen])


def facts_of_run(folder: Path, said: Mapping[str, Any], offset: int) -> dict[int, list[str]]:
    """[prompt, answer] of a run's edits up to a checkpoint, by their number in the run.

    They stand in edits.jsonl, from index `offset` on; where that is missing or damaged they are read from the records,
    if those are as they were. A run whose facts are nowhere gives none, and a line in the log.
    """
    edits = said["state"]["loop"]["edits"]
    try:
        with open(regular(folder / "edits.jsonl"), encoding="utf-8") as file:
            lines = {line["index"] - offset: [line["prompt"], line["target"]] for line in map(json.loads, file)}
        return {index: fact for index, fact in lines.items() if 0 <= index < edits}
    except (OSError, ValueError, LookupError, TypeError):
        return _facts_of_records(folder, said, edits)


def _facts_of_records(folder: Path, said: Mapping[str, Any], edits: int) -> dict[int, list[str]]:
    try:
        cfg = typed_config(said["config"], editor_class(said["config"]["editor"]["name"]).config_class)
        path = locate(cfg.dataset.valid_path)
        if said["files"].get(str(path.resolve())) != sha256_of(path):
            raise ValueError(f"{path} is not the file that was edited")
        attempts = RecordFile(path, RowReader(cfg.dataset), cfg.seed).attempts()
        good = islice((found for found in attempts if isinstance(found, Edit)), edits)
        return {index: [edit.prompt, edit.answer] for index, edit in enumerate(good)}
    except (
        Exception
    ) as error:  # a file that is gone, a configuration of long ago: facts are scored where they are there
        log.warning("%s: its facts cannot be asked again: no edits.jsonl, and %s", folder, error)
        return {}


class Asks(Protocol):
    """A session, as far as it is asked here."""

    earlier: list[Written]

    def answers(self, pairs: Sequence[tuple[str, str]]) -> list[Answered]:
        """What the model would choose where the answers of these (prompt, answer) stand."""

    def context(self, prompt: str) -> str:
        """What stands before every prompt of the edit with this prompt."""


class Earlier:
    """What was written before a run, asked again before and after it."""

    def __init__(self, session: Asks) -> None:
        self.session, self.written = session, session.earlier
        self.edits = sum(one.edits for one in self.written)
        self.steps = sum(one.steps for one in self.written)
        self.by_run: dict[str, list[float | None]] = {}

    def ask(self, when: str) -> dict[str, tuple[float, int]]:
        """ES_earlier over all facts with the model as it stands, and its number of facts; nothing without facts."""
        tally, means = Tally(), list[float | None]()
        for one in self.written:
            pairs = [(self.session.context(prompt) + prompt, answer) for prompt, answer in one.facts]
            found = [right.accuracy for right in self.session.answers(pairs)]
            for accuracy in found:
                tally.add(METRIC, accuracy)
            means.append(sum(found) / len(found) if found else None)
        self.by_run[when] = means
        return {name: (value, tally.counts[name]) for name, value in tally.means().items()}

    def told(self) -> dict[str, Any]:
        """The parts of results.json: from which run this one continued, and how much of each earlier run is kept."""
        if not self.written:
            return {}
        rows = [{"run": one.run, "edits": one.edits, "n": len(one.facts)} for one in self.written]
        for when, means in self.by_run.items():
            rows = [row | {when: mean} for row, mean in zip(rows, means, strict=True)]
        continued = {"from": self.written[-1].run, "edits": self.edits, "steps": self.steps}
        return {"continued": continued, "earlier": rows}
