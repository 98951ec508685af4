"""What a run's directory tells of its steps, as a session's ledger has it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from config.check import ConfigError
from config.compose import typed_config
from config.schema import Config
from editor.registry import editor_class
from files import regular
from lifelong import saved_sessions
from lifelong.earlier import facts_of_run
from lifelong.ledger import step_of
from lifelong.origin import STATE, kept, of_checkpoint, read, trained
from lifelong.resume import intact
from lifelong.session_state import SessionState

TOLD = ("loss", "tokens", "sites", "statistics", "seconds")  # of a step, in its line


def whole(line: Mapping[str, Any]) -> bool:
    """Whether a line about a step has all that a ledger takes from it."""
    return {*TOLD, "edits", "phase"} <= line.keys()


def step_lines(run_dir: Path) -> dict[int, dict[str, Any]]:
    """The lines of metrics.jsonl about steps, by number; none where it cannot be read."""
    try:
        with open(regular(run_dir / "metrics.jsonl"), encoding="utf-8") as file:
            return {line["index"]: line for line in map(json.loads, file) if line["event"] == "step" and whole(line)}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def load_history(session: SessionState, run_dir: Path, said: Mapping[str, Any], steps: int) -> None:
    """Make a session's ledger that of a run's first steps, and what was written before them that of its start.

    Prompts of warm-up steps are not told, nor when a step was made.
    """
    start = kept(run_dir) if said["config"].get("continue_from") else None
    session.earlier = start.written if start else []
    offset = sum(one.edits for one in session.earlier)
    facts, lines, done = facts_of_run(run_dir, said, offset), step_lines(run_dir), 0
    session.ledger.steps = []
    for index in range(steps):
        if index not in lines:
            return
        line, first = lines[index], done
        done = line["edits"] - offset
        known = [facts[number] for number in range(first, done) if number in facts]
        prompts, answers = [fact[0] for fact in known], [fact[1] for fact in known]
        told = {name: line[name] for name in TOLD}
        told |= {"index": index, "time": "", "warm_up": line["phase"] == "warm-up"}
        session.ledger.steps.append(step_of(told | {"prompts": prompts, "answers": answers}))


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run's checkpoints, and no saved session."""
    return os.path.isdir(folder / "checkpoints") and not os.path.exists(folder / saved_sessions.INSIDE)


def config_of(run_dir: Path, device: str) -> Config:
    """The configuration of a run that a session goes on with.

    Raises:
        ConfigError: as origin.read; another version of the program wrote it.
    """
    config = read(run_dir, "folder").config
    try:
        cfg = typed_config(config, editor_class(config["editor"]["name"]).config_class)
    except Exception as error:
        raise ConfigError(f"{run_dir}: its configuration is of another version ({error})") from error
    return replace(cfg, model_device=device, resume=None, continue_from=None)


def open_run(session: SessionState, run_dir: Path) -> None:
    """Put the newest state of a run into a session, its steps into the ledger, and the states that undo may reach.

    Raises:
        ConfigError: as origin.read and Origin.put_into.
    """
    states = [(path, said) for path, said in intact(run_dir) if trained(said)]
    (path, said), *older = states
    of_checkpoint(run_dir, path, said, "folder").put_into(session)
    load_history(session, run_dir, said, said["state"]["loop"]["position"])
    room = session.ledger.gib * 2**30
    for path, said in older:
        position, room = said["state"]["loop"]["position"], room - (path / STATE).stat().st_size
        if position < len(session.ledger.steps) and room >= 0:
            session.ledger.states[position] = load_file(path / STATE, str(session.editor.solve_device))
