"""python main.py undo=RUN steps=N model_cache_dir=DIR: a run as it was N steps earlier, as a saved session.

The nearest kept checkpoint at or before that step (or what the run started from) is loaded, and the steps between are
made again from the records; each must come out as metrics.jsonl has it, so that what is saved is exact or refused.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

from config.check import ConfigError, RunError
from config.progress import Progress
from config.schema import Config
from editor.base import StepReport
from exports.folders import check_save_folder
from files import finite
from lifelong import saved_sessions
from lifelong.history import is_run, load_history, step_lines
from lifelong.origin import of_checkpoint, trained
from lifelong.resume import intact
from lifelong.run import Plan, plan_run
from lifelong.session import Session, open_session
from lifelong.setup import schedule
from lifelong.status import held, writing


def undo_run(cfg: Config) -> str:
    """Save the state of cfg.undo before its last cfg.steps steps; what was done, in a line.

    Raises:
        ConfigError: the run made fewer steps, nothing that was kept reaches so far back, or it is not as it was.
        RunError: a step did not come out as the run recorded it; the folder cannot be written.
    """
    run_dir = Path(str(cfg.undo)).expanduser().absolute()
    if not cfg.model_cache_dir:
        raise ConfigError(f"undo={cfg.undo} needs model_cache_dir=DIR, the folder to save the model to")
    if cfg.resume:
        raise ConfigError(f"undo={cfg.undo} resume={cfg.resume}: one at a time")
    if not is_run(run_dir):
        raise ConfigError(f"undo={cfg.undo}: is no run directory with checkpoints; of a saved session: session.undo()")
    check_save_folder(cfg.model_cache_dir)
    with held(run_dir, resumes=True):
        plan = plan_run(replace(cfg, resume=str(run_dir)), run_dir)
        assert plan.newest is not None
        target = plan.newest[1]["state"]["loop"]["position"] - cfg.steps
        _check_reach(plan, target)
        checkpoint = _nearest(plan, target)
        with open_session(plan.cfg, plan.tokenizer, plan.device, plan.solve_device) as session:
            position = _load(plan, session, checkpoint)
            _replay(plan, session, position, target)
            load_history(session, run_dir, plan.newest[1], target)
            folder = Path(cfg.model_cache_dir).expanduser().absolute()
            session.cfg = replace(cfg, undo=None, steps=1, continue_from=None, model_cache_dir=None)
            with writing("model_cache_dir", folder, "make room"):
                saved_sessions.write(session, folder)
    return f"{run_dir} as it was {cfg.steps} steps earlier, after {target} of its steps: {folder}"


def _check_reach(plan: Plan, target: int) -> None:
    if target < 0:
        made, before = target + plan.cfg.steps, ""
        if plan.origin is not None:
            before = f"; what it continued from is undone by undo={plan.origin.folder}"
        raise ConfigError(f"steps={plan.cfg.steps}: {plan.run_dir} made {made} steps, warm-up among them{before}")


def _nearest(plan: Plan, target: int) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint at or before a step; None for the run's start.

    Raises:
        ConfigError: there is neither.
    """
    positions = []
    for path, said in intact(plan.run_dir):
        if trained(said):
            positions.append(said["state"]["loop"]["position"])
            if positions[-1] <= target:
                return path, said
    if plan.origin is None and "training" in plan.newest[1]["state"]:  # type: ignore[index]
        raise ConfigError(
            f"steps={plan.cfg.steps}: the state after step {target} lies before the first that was kept, after step "
            f"{min(positions)}; checkpoint.every and checkpoint.keep say which are kept"
        )
    return None


def _load(plan: Plan, session: Session, checkpoint: tuple[Path, dict[str, Any]] | None) -> int:
    """Put the checkpoint, or what the run started from, into the session; gives the steps that are done."""
    if checkpoint is not None:
        of_checkpoint(plan.run_dir, *checkpoint, "undo").put_into(session)
        return int(checkpoint[1]["state"]["loop"]["position"])
    if plan.origin is not None:
        plan.origin.put_into(session)
    elif session.fingerprint != plan.newest[1]["model"]:  # type: ignore[index]
        raise ConfigError(f"undo: the weights of {plan.cfg.model.name_or_path} are not those that the run started with")
    return 0


def _replay(plan: Plan, session: Session, position: int, target: int) -> None:
    """Make the steps from `position` to `target` again.

    Raises:
        RunError: one does not come out as the run recorded it.
    """
    lines = step_lines(plan.run_dir)
    made = islice(schedule(plan.cfg, plan.data), position, target)
    with Progress(total=target - position, desc="replay", unit="step", disable=None, leave=False) as bar:
        for index, (warm_up, edits) in enumerate(made, start=position):
            report = session.step(edits, warm_up=warm_up)
            if _told(report) != {name: lines.get(index, {}).get(name) for name in _told(report)}:
                raise RunError(
                    f"undo: step {index} did not come out as {plan.run_dir}/metrics.jsonl has it, with other "
                    "threads, hardware or libraries, or its line is lost; only a kept state is exact here "
                    "(checkpoint.keep)"
                )
            bar.update()


def _told(report: StepReport) -> dict[str, Any]:
    said = json.loads(json.dumps(finite(asdict(report))))
    return {name: said[name] for name in ("loss", "tokens", "sites", "statistics")}
