"""The end of a run: the edited model saved, the results written, the report made, the tables printed."""

from __future__ import annotations

import logging
import shlex
import sys
from pathlib import Path
from typing import Any

from config.schema import Config
from exports.save import save_edited
from lifelong.recorder import Recorder, peak_memory, versions
from lifelong.session import Session
from report.terminal import downstream_table, print_examples, print_metrics

log = logging.getLogger(__name__)


def finish(
    cfg: Config, session: Session, recorder: Recorder, results: dict[str, Any], identity: dict[str, Any] | None
) -> dict[str, Any]:
    """Complete the results and write them, with the edited model where `identity` (of its base) is given; report."""
    results |= {"peak_memory": peak_memory(), "versions": versions()}
    results["command"] = shlex.join(["python", "main.py", *sys.argv[1:]])
    if identity is not None:
        results["model_cache_dir"] = str(save_edited(cfg, session.model, session.tokenizer, identity, results))
    evaluations = recorder.events("downstream")
    if evaluations:
        results["downstream"] = [{k: v for k, v in line.items() if k != "event"} for line in evaluations]
    recorder.finish(results)
    return results | ({"report": _report(recorder.run_dir)} if cfg.report else {})


def _report(run_dir: Path) -> str | None:
    """The report's path; a report that cannot be made takes nothing from the run."""
    import report  # matplotlib takes a second to load

    try:
        return str(report.make([run_dir]))
    except Exception:
        log.exception("the report could not be made; the numbers are in %s", run_dir / "results.json")
        return None


def show(results: dict[str, Any], run_dir: Path) -> None:
    """What a run ends with on the terminal."""
    print_examples(results["examples"])
    print_metrics(results["metrics"])
    downstream = downstream_table(results.get("downstream", []))
    if downstream:
        print(downstream)
    print(f"written to {run_dir}")
    if results.get("report"):
        print(f"report: {results['report']}")
