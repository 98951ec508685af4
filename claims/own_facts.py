"""Facts of one's own: which are given back, and how many everyday answers change (docs/data.md).

python -m claims.own_facts [KEY=VALUE ...]   five facts in the embedded model, edited as a user's command line does
"""

from __future__ import annotations

import csv
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from config.compose import compose_config
from lifelong import Session
from lifelong import run as lifelong_run

ASKED = Path(__file__).with_suffix(".yaml")
EMBEDDED = ("model=smollm2-135m",)
QUIET = ("wandb.mode=disabled", "report=false", "eval.before=false", "checkpoint.every=1")


def measured(words: Sequence[str], asked: Mapping[str, Any], folder: Path) -> list[str]:
    """Write the facts by a run in `folder` and ask: what came of it, a line each.

    `words` are the command line's, beside data set and file. An answer is greedy, as Session.ask gives it.
    """
    with open(folder / "facts.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("prompt", "answer"), *asked["facts"].items()])
    cfg = compose_config([*words, "dataset=custom", f"dataset.valid_path={folder / 'facts.csv'}", *QUIET])
    lifelong_run.run(cfg, folder / "run")
    model, shown = cfg.model, cfg.dataset.prompt_format.value
    before = Session.load(model.name_or_path, sites=model.edit_modules, format=shown, device=cfg.model_device)
    after = Session.open(folder / "run")
    back = sum(answer.lower() in after.ask(prompt).lower() for prompt, answer in asked["facts"].items())
    told = [f"facts given back: {back} of {len(asked['facts'])}"]
    for name in [name for name in asked if name != "facts"]:
        pairs = [(before.ask(prompt).split(), after.ask(prompt).split()) for prompt in asked[name]]
        words_differ = sum(then != now for then, now in pairs)
        early = sum(then[:3] != now[:3] for then, now in pairs)
        told.append(f"{name}: {words_differ} of {len(pairs)} answers in other words, {early} from the first three on")
    return told


def main() -> None:
    """Print what came of it."""
    with tempfile.TemporaryDirectory() as folder:
        asked = yaml.safe_load(ASKED.read_text(encoding="utf-8"))
        print(*measured([*EMBEDDED, *sys.argv[1:]], asked, Path(folder)), sep="\n")


if __name__ == "__main__":
    main()
