"""Records of claims runs that never ran, for tests of what is made of them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from claims.evidence import Evidence
from claims.plan import FULL, SHORT, Job, Scale, settings
from claims.runner import Runner
from claims.verdicts import judge
from files import write_json
from lifelong.status import new_status, now, write_status


def made_up(
    out: Path, job: Job, scores: dict[str, float] | None = None, *, immediate: Callable[[float], float] = lambda x: 0.5,
    norm: Callable[[float], float] = lambda x: 1.0, cosine: Callable[[float], float] = lambda x: 0.1,
    failed: str | None = None, words: tuple[str, ...] | None = None,
) -> Path:  # fmt: skip
    """A run's records: `scores` are means over 200 edits, the curves functions of the share of the run that is done."""
    folder, draw = out / job.path, random.Random(0)
    (folder / ".hydra").mkdir(parents=True, exist_ok=True)
    status = new_status(job.words if words is None else words, None)
    write_status(folder, status | {"state": "failed" if failed else "done", "error": failed, "ended": now()})
    (folder / ".hydra" / "overrides.yaml").write_text("[]")
    if failed:
        return folder
    scores, before = {"ES": 0.5, "GS": 0.3, "LS": 0.3} | (scores or {}), {"ES": 0.05, "GS": 0.05, "LS": 0.4}
    lines = []
    for index in range(200):
        noise = draw.uniform(-0.2, 0.2)
        after = {m: {"tokens": min(1, max(0, scores[m] + noise + draw.uniform(-0.02, 0.02)))} for m in before}
        after["ES"]["exact"] = after["GS"]["exact"] = draw.random() < scores["ES"]
        lines.append(json.dumps({"index": index * 5, "after": after}))
    (folder / "edits.jsonl").write_text("\n".join(lines))
    events: list[dict[str, Any]] = []
    for step in range(1, 31):
        share = step / 30
        site = {"shift_norm": norm(share) + draw.gauss(0, 0.01), "cosine": cosine(share) + draw.gauss(0, 0.01)}
        events.append({"event": "step", "phase": "edit", "edits": step * 10, "sites": {"a": site}})
        now_es = immediate(share) + draw.gauss(0, 0.02)
        sample = {"ES": scores["ES"], "LS": scores["LS"]}
        line = {"event": "over_time", "step": step, "edits": step * 10, "sample": sample}
        events.append(line | {"immediate": {"ES": now_es, "GS": now_es / 2}})
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, events)))
    more = {"edits": 1000, "protocol": "token accuracy"}
    rows = [{"metric": m, "value": scores[m], "before": before[m], "n": 200, **more} for m in before]
    rows.append({"metric": "KS", "value": scores.get("KS", 0.6), "before": 0.9, "n": 100, **more})
    abilities = [{"edits": 0, "average/accuracy_new": 0.5}, {"edits": 1000, "average/accuracy_new": 0.45}]
    config: dict[str, Any] = {"model": {"name": "tiny", "edit_modules": ["a"]}}
    config["downstream"] = {"number_of_tests": 7, "tasks": ["sst", "rte"]}
    results = {"pre": before, "metrics": rows, "counts": {"edits": 1000}, "versions": {"python": "3"}}
    write_json(folder / "results.json", results | {"downstream": abilities, "config": config})
    return folder


def long_run(out: Path, name: str, scores: dict[str, float] | None = None, seed: int = 0, **more: Any) -> Path:
    job = Runner(SHORT, out).final(settings(FULL)[name], "editor.lr=1", seed, knowns=False)
    return made_up(out, job, scores, **more)


def verdict(part: str, out: Path) -> str:
    return judge(part, Evidence(out)).outcome


def noted(out: Path, scale: Scale = SHORT) -> Runner:
    out.mkdir(exist_ok=True)
    write_json(out / "claims.json", {"scale": scale.name, "extra": [], "cpu": "a <processor>", "cores": 2})
    return Runner(scale, out)
