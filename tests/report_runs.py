"""Run directories with made-up numbers, as a run leaves them: short, long, learned, failed, and a sweep."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

from files import write_json

SHAPE = "(1536, 576)"
TOKENS = "token accuracy, teacher-forced"
LAST = {"ES": 0.68, "GS": 0.27, "LS": 0.26, "KS": 0.41, "LS_agreement": 0.63}
FIRST = {"ES": 0.05, "GS": 0.05, "LS": 0.40, "KS": 0.62, "LS_agreement": 1.0}


def wilson(p: float, n: int) -> tuple[float, float]:
    """95 % interval of a share."""
    z = 1.959963984540054
    middle, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (middle - spread) / (1 + z * z / n), (middle + spread) / (1 + z * z / n)


def config(editor: str = "stableedit", best: str = "gain", **editor_keys: Any) -> dict[str, Any]:
    """A resolved configuration."""
    return {
        "dataset": {"name": "facts", "n_edits": 100, "fields": {"prompt": "prompt"}},
        "model": {"name": "smollm2-135m", "edit_modules": ["model.layers.24.mlp.down_proj"], "device_map": None},
        "editor": {"name": editor, "lr": 1.5e-3, "alpha": 10.0, "preheat_mode": "start"} | editor_keys,
        "eval": {"best": best},
        "seed": 42,
    }


def metrics(
    draw: random.Random, edits: int, step: int, shift: float = 0.0, before: bool = True
) -> list[dict[str, Any]]:
    """The final table of results.json."""
    rows = []
    for name, protocol in [(n, TOKENS) for n in ("ES", "GS", "LS", "person_score", "KS")] + [
        ("ES_all", "all tokens right"),
        ("GS_all", "all tokens right"),
        ("LS_agreement", "first choices unchanged"),
        ("LS_kl", "KL divergence, nats"),
        ("ES_exact", "greedy generation: exact match"),
        ("ES_contain", "greedy generation: containment"),
    ]:
        value = min(1.0, max(0.0, LAST.get(name, 0.2) + shift + draw.gauss(0, 0.01)))
        row: dict[str, Any] = {"metric": name, "protocol": protocol, "value": value, "n": 500, "edits": edits}
        low, high = (None, None) if name == "LS_kl" else wilson(value, 500)
        row |= {"step": step, "low": low, "high": high}
        if before:
            first = FIRST.get(name, 0.04) + draw.gauss(0, 0.001)
            row |= {"before": min(1.0, first)} | dict(
                zip(("before_low", "before_high"), wilson(0.05, 500), strict=True)
            )
        rows.append(row)
    return rows


def step_lines(draw: random.Random, steps: int, sites: list[str], warm_up: int, n_edits: int) -> list[dict[str, Any]]:
    """The step events: norms that fall off, cosines near nothing."""
    lines = []
    for index in range(warm_up + steps):
        shifts = {
            site: {
                "shift_norm": 25 + 20 / (1 + index / 8) + 0.6 * i + draw.gauss(0, 0.8),
                "cosine": None if index == 0 else draw.gauss(-0.008, 0.012),
                "lost_share": 0.0,
            }
            for i, site in enumerate(sites)
        }
        line = {"event": "step", "index": index, "phase": "warm-up" if index < warm_up else "edit"}
        line |= {"edits": max(0, index + 1 - warm_up) * n_edits, "loss": 8 + draw.gauss(0, 0.3), "tokens": 120}
        statistics = {SHAPE: {"rows": 480 * (index + 1), "key_std": 0.69, "gradient_std": 5e-4}}
        lines.append(line | {"sites": shifts, "statistics": statistics, "seconds": {"capture": 4.0}})
    return lines


def over_time(draw: random.Random, steps: int, every: int, n_edits: int) -> list[dict[str, Any]]:
    """The over_time events: ES and GS fall a little, LS a little more."""
    lines = []
    for step in range(0, steps + 1, every):
        done = step / steps
        sample = {name: FIRST[name] + (LAST[name] - FIRST[name]) * done + draw.gauss(0, 0.01) for name in LAST}
        sample |= {"LS_kl": 1.4 * done**0.6, "LS_agreement": min(1.0, sample["LS_agreement"])}
        line: dict[str, Any] = {"event": "over_time", "step": step, "edits": step * n_edits}
        if step == 0:
            del sample["ES"], sample["GS"]
        else:
            sample |= {"ES": 0.78 - 0.1 * done + draw.gauss(0, 0.01), "GS": 0.33 - 0.06 * done + draw.gauss(0, 0.01)}
            line["immediate"] = {"ES": 0.8 + draw.gauss(0, 0.02), "GS": 0.35 + draw.gauss(0, 0.02)}
            line["retention"] = {
                str(batch): max(0.0, 0.8 - 0.12 * (step - batch) / steps * 3 + draw.gauss(0, 0.02))
                for batch in range(1, step + 1)
            }
        lines.append(line | {"sample": sample, "n": dict.fromkeys(sample, 100)})
    return lines


def downstream(draw: random.Random, steps: int, n_edits: int) -> list[dict[str, Any]]:
    """Downstream evaluations at the start, in the middle and at the end."""
    lines = []
    for step in (0, steps // 2, steps):
        line: dict[str, Any] = {"edits": step * n_edits}
        for task in ("sst", "mrpc", "cola", "rte", "mmlu", "nli", "average"):
            line[f"{task}/f1_new"] = 0.55 - 0.05 * step / steps + draw.gauss(0, 0.03)
            line[f"{task}/accuracy_new"] = 0.57 - 0.04 * step / steps
        lines.append(line)
    return lines


EXAMPLES = [
    ("What is the capital of Kelmark?", " the city of", " Ostrava", "Ostrava"),
    ("Which river flows through the town of Hallein?", " The river Rhine", " Salzach", "Salzach"),
    ("Prompt with <script>alert('x')</script> & <b>tags</b>", None, ' "quoted" <img src=x onerror=alert(1)>', "a & b"),
]


def write_run(
    path: Path,
    *,
    steps: int = 5,
    sites: int = 4,
    every: int = 1,
    warm_up: int = 2,
    editor: str = "stableedit",
    train: int = 0,
    shift: float = 0.0,
    before: bool = True,
    seed: int = 0,
    overrides: tuple[str, ...] = ("experiment=quickstart",),
    **editor_keys: Any,
) -> Path:
    """A finished run; returns its directory."""
    draw = random.Random(seed)
    path.mkdir(parents=True)
    names = [f"model.layers.{30 - sites + i}.mlp.down_proj" for i in range(sites)]
    rows = metrics(draw, steps * 100, steps, shift, before)
    top = {row["metric"]: row["value"] for row in rows if row["metric"] in ("ES", "GS", "LS", "person_score")}
    pre = {row["metric"]: row["before"] for row in rows if row["metric"] in top} if before else None
    tests = downstream(draw, steps, 100)
    lines = [{"event": "evaluate", "edits": 0, **pre}] if pre else []
    lines += [
        {"event": "train", "epoch": 0, "index": i, "gen_loss": 3 + math.exp(-i / 9) + draw.gauss(0, 0.05)}
        | {"loc_loss": 0.2 + 0.2 * (1 - math.exp(-i / 9)), "gradient_norm": 5000.0, "sites": {}, "seconds": {}}
        for i in range(train)
    ]
    lines += step_lines(draw, steps, names, warm_up, 100)
    lines += over_time(draw, steps, every, 100)
    lines += [{"event": "downstream"} | line for line in tests]
    lines += [{"event": "evaluate", "edits": steps * 100, **top}]
    results: dict[str, Any] = top | {"pre": pre, "metrics": rows, "downstream": tests}
    results["examples"] = [
        {"index": i, "step": 1, "prompt": p, "before": b, "after": a, "target": t, "kind": "generated"}
        for i, (p, b, a, t) in enumerate(EXAMPLES)
    ]
    if train:
        results["train"] = {"gen_loss": 3.1, "loc_loss": 0.35, "reg_coef": 1e-2}
    else:
        values = [2e-4 * math.exp(-((i / 40) ** 0.7)) for i in range(576)]
        spectrum = {"eigenvalues": values, "ranks": list(range(1, 577)), "floor": 1e-6, "size": 576}
        below = sum(value < 1e-6 for value in values)
        results["spectrum"] = {SHAPE: spectrum | {"below": below, "rows": 480 * (steps + warm_up)}}
    results["counts"] = {"edits": steps * 100, "steps": steps + warm_up, "warm_up_steps": warm_up, "tokens": 860}
    phases = ("check", "load", "evaluate before", "step: capture", "step: ridge", "over_time", "evaluate after")
    results["seconds"] = {name: 20 * draw.random() ** 2 for name in phases}
    results |= {"peak_memory": {"resident_mib": 1362}, "retries": {"cholesky": 1}, "skipped": {"rows.jsonl": [3, 7]}}
    results |= {"versions": {"python": "3.11.7", "torch": "2.13.0"}, "config": config(editor, **editor_keys)}
    results["command"] = "python main.py " + " ".join(overrides)
    write_json(path / "results.json", results)
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    status(path, "done", overrides)
    return path


def status(path: Path, state: str, overrides: tuple[str, ...] = (), **more: Any) -> None:
    """status.json and Hydra's list of overrides."""
    (path / ".hydra").mkdir(parents=True, exist_ok=True)
    (path / ".hydra" / "overrides.yaml").write_text("".join(f"- {word}\n" for word in overrides))
    content = {"state": state, "overrides": list(overrides), "started": "2026-11-22T17:26:48", "job": path.name}
    write_json(path / "status.json", content | more)


def write_failed(path: Path, overrides: tuple[str, ...] = ("experiment=quickstart",)) -> Path:
    """A run that stopped in its third step; its last line is cut off."""
    path.mkdir(parents=True)
    lines = [{"event": "evaluate", "edits": 0, "ES": 0.05, "GS": 0.05, "LS": 0.4}]
    lines += step_lines(random.Random(1), 1, ["a.0.down", "a.1.down"], 2, 100)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (path / "metrics.jsonl").write_text(text + '{"event": "step", "ind')
    calls = "".join(f'  File "editor/{i}.py", line {i}, in step\n' for i in range(20))
    trace = f"Traceback (most recent call last):\n{calls}NumericsError: loss is <nan>"
    status(path, "failed", overrides, error="step 3 (rows 200 to 299): loss is <nan>", traceback=trace)
    return path


def write_sweep(path: Path, steps: int = 5) -> Path:
    """3 alphas x 3 places of the warm-up; job 7 failed, job 4 is best."""
    modes, job = ("start", "middle", "none"), 0
    for alpha in (1, 10, 100):
        for mode in modes:
            words = ("experiment=quickstart", f"editor.alpha={alpha}", f"editor.preheat_mode={mode}")
            folder = path / str(job)
            if job == 7:
                write_failed(folder, words)
            else:
                shift = 0.1 - 0.04 * abs(job - 4)
                write_run(
                    folder, steps=steps, shift=shift, seed=job, overrides=words,
                    alpha=float(alpha), preheat_mode=mode,
                )  # fmt: skip
            job += 1
    (path / "multirun.yaml").write_text("hydra: {}\n")
    return path
