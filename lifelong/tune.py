"""python main.py tune=true: which step size, and which sites, on records that the run would not edit."""

from __future__ import annotations

import logging
import math
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from config.check import ConfigError, RunError
from config.editors import EditorConfig, FinetuneConfig
from config.schema import Config
from config.sites import KEY, expand_sites, fold_sites
from data.batches import context_check
from editor.base import Stopwatch
from editor.frozen import check_layers
from editor.sites import check_sites
from files import finite, write_json
from lifelong.evaluation import headline
from lifelong.heldout import HeldOut, held_out
from lifelong.preset import write_preset
from lifelong.recorder import peak_memory, versions
from lifelong.run import as_dict, check, check_writable, write_report
from lifelong.search import grid, next_lr
from lifelong.session import check_editor, open_session
from lifelong.setup import Data, prepare
from lifelong.trials import Trial, Trials
from model import model_skeleton, resolve_device
from nets import NumericsError
from report.metrics import Measured, described
from report.terminal import aligned, cell

log = logging.getLogger(__name__)
SPAN = (0.01, 1.0)
"""The grid's shifts, against the norm of the weights, where tune_lr says no step sizes."""
SHOWN = ("ES_all", "GS_all", "LS_agreement")
"""What the objective is made of (report.metrics.merit)."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """A search that was checked: its records, and a configuration per list of sites."""

    configs: list[Config]
    data: Data
    held: HeldOut
    tokenizer: PreTrainedTokenizerBase
    devices: tuple[torch.device, torch.device]


def tune(cfg: Config, run_dir: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """The whole search; returns what it writes to results.json. `overrides` are the words that the preset keeps.

    Raises:
        ConfigError, DataError: bad input, before any model is loaded.
        RunError: every trial failed.
    """
    watch = Stopwatch()
    with watch("check"):
        tuning = plan_tuning(cfg)
        check_writable(cfg, run_dir)
    model: PreTrainedModel | None = None
    trials: list[Trial] = []
    best: tuple[Trial, Measured, Measured] | None = None
    for one in tuning.configs:
        with watch("trials"), open_session(one, tuning.tokenizer, *tuning.devices, model) as session:
            model = session.model
            made = Trials(session, tuning.held.edits, tuning.data.training, fold_sites(one.model.edit_modules))
            for trial in searched(made, cfg):
                trials.append(trial)
                log.info("trial %d: %s", len(trials), said(trial))
                if trial.objective is not None and (best is None or trial.objective > (best[0].objective or 0.0)):
                    best = trial, made.before, made.after[trial.lr]
    if best is None:
        raise RunError(f"tune=true: every trial failed; the last one: {trials[-1].error}")
    results = results_of(cfg, tuning, trials, best, watch)
    found = {"editor.lr": best[0].lr} | ({"model.edit_modules": best[0].sites} if cfg.tune_sites else {})
    results["tune"] |= write_preset(run_dir, overrides, found, told(best[0], tuning))
    write_json(run_dir / "results.json", finite(results))
    results |= {"report": write_report(run_dir)} if cfg.report else {}
    show(results, trials, best[0], run_dir)
    return results


def plan_tuning(cfg: Config) -> Tuning:
    """Check everything that can be checked before a model loads, and pick the records.

    Raises:
        ConfigError, DataError: bad input.
    """
    check_tuning(cfg)
    try:
        lists = [expand_sites(entry.split()) for entry in cfg.tune_sites] or [cfg.model.edit_modules]
        configs = [for_trials(cfg, sites) for sites in lists]
        check(configs[0])
        skeleton = model_skeleton(cfg.model)
        for one in configs:
            check_sites(skeleton, one.model.edit_modules)
            check_layers(skeleton, one.model)
    except ConfigError as error:
        raise ConfigError(str(error).replace(KEY, "tune_sites" if cfg.tune_sites else KEY)) from error
    device = resolve_device("model_device", cfg.model_device)
    solve = device if cfg.editor_device == "auto" else resolve_device("editor_device", cfg.editor_device)
    data, tokenizer = prepare(configs[0])
    context = getattr(skeleton.config, "max_position_embeddings", None)
    steps = math.ceil(cfg.tune_edits / cfg.dataset.n_edits)
    fits = context_check(tokenizer, context, cfg.dataset.prompt_format)
    held = held_out(cfg, data, fits, steps * cfg.dataset.n_edits)
    if not any(edit.unrelated or any(kind == "neighbour" for kind, *_ in edit.more) for edit in held.edits):
        log.warning("tune=true: no record has an unrelated prompt, so nothing speaks against a large step size")
    return Tuning(configs, data, held, tokenizer, (device, solve))


def check_tuning(cfg: Config) -> None:
    """Refuse, by a ConfigError, what cannot be tuned."""
    if cfg.resume:
        raise ConfigError(f"resume={cfg.resume}: tune=true starts anew; it keeps no checkpoint")
    if cfg.model_cache:
        raise ConfigError("model_cache=true: tune=true keeps no model; save that of the run that uses its preset")
    kind = check_editor(cfg)
    if not kind.scaled:
        raise ConfigError(f"tune=true: editor={cfg.editor.name} has no step size to search")
    if kind.trains:
        raise ConfigError(
            f"tune=true: editor={cfg.editor.name} learns its step sizes from editor.lr on; compare a few values by "
            "python main.py -m editor.lr=..."
        )
    if not isinstance(cfg.editor, EditorConfig | FinetuneConfig):
        raise ConfigError(f"tune=true: editor={cfg.editor.name} has no step size to search; run it as it is")
    if isinstance(cfg.editor, FinetuneConfig) and cfg.tune_lr is None:
        raise ConfigError(
            f"tune_lr=null: shifts of editor={cfg.editor.name} do not grow in proportion to editor.lr, so that no grid "
            "follows from one; name it, such as tune_lr=[1e-5,1e-3]"
        )
    if cfg.tune_lr is not None:
        pair = cfg.tune_lr
        if len(pair) != 2 or not 0 < pair[0] < pair[1] < math.inf:
            raise ConfigError(f"tune_lr={pair}: must be [lowest, highest], finite numbers above 0")


def for_trials(cfg: Config, sites: list[str]) -> Config:
    """The configuration of trials at these sites: nothing is generated, every edit is scored."""
    if not sites:
        raise ConfigError("tune_sites: a list of sites is blank; name modules with blanks between")
    evaluation = replace(cfg.eval, edits=None, examples=0, generate=False, probes=[], before=False, knowns=0)
    return replace(cfg, model=replace(cfg.model, edit_modules=sites), editor=replace(cfg.editor), eval=evaluation)


def searched(made: Trials, cfg: Config) -> Iterator[Trial]:
    """The trials at one list of sites: lifelong/search.py says which."""
    try:
        per_lr = made.per_lr() if cfg.tune_lr is None else None
        if per_lr == 0:
            raise NumericsError("every shift is zero")
    except NumericsError as error:
        yield Trial(made.sites, made.lr, error=str(error))
        return
    low, high = cfg.tune_lr if per_lr is None else [share / per_lr for share in SPAN]  # type: ignore[misc]
    points, found = grid(low, high, cfg.tune_trials), dict[float, Trial]()
    while len(found) < cfg.tune_trials:
        lr = next_lr({lr: trial.objective for lr, trial in found.items()}, points)
        if lr is None or lr in found:
            break
        found[lr] = made.run(lr)
        yield found[lr]
    if made.thin:
        log.warning(
            "tune_edits=%d: too few rows to whiten by, so the step size is that of the diagonal normalization, which "
            "a longer run leaves; raise tune_edits", cfg.tune_edits,
        )  # fmt: skip


def told(trial: Trial, tuning: Tuning) -> str:
    """What the preset says of itself."""
    held = tuning.held
    rows = f"rows {held.edits[0].row} to {held.edits[-1].row} of {held.path}"
    return f"Found by tune=true on {len(held.edits)} held-out records ({rows}): {said(trial)}"


def said(trial: Trial) -> str:
    """A trial in words."""
    if trial.scores is None:
        return f"lr {trial.lr:.1e} failed: {trial.error}"
    numbers = [
        f"{name} {trial.scores[name]:.3f}" for name in ("ES_all", "GS_all", "LS_agreement") if name in trial.scores
    ]
    return f"lr {trial.lr:.1e}, objective {trial.objective:+.3f} ({', '.join(numbers)})"


def results_of(
    cfg: Config, tuning: Tuning, trials: Sequence[Trial], best: tuple[Trial, Measured, Measured], watch: Stopwatch
) -> dict[str, Any]:
    """The numbers of results.json: all trials, and the scores of the best as those of a run."""
    trial, before, after = best
    edits, steps = len(tuning.held.edits), len(tuning.held.edits) // cfg.dataset.n_edits
    return {
        **headline(after),
        "pre": headline(before),
        "metrics": described(after, before, edits, steps),
        "counts": {"edits": edits, "steps": steps},
        "tune": {"trials": [asdict(one) for one in trials], "best": list(trials).index(trial), "file": tuning.held.path,
                 "rows": [edit.row for edit in tuning.held.edits]},
        "seconds": dict(watch.seconds),
        "examples": [],
        "config": as_dict(cfg),
        "peak_memory": peak_memory(),
        "versions": versions(),
        "command": shlex.join(["python", "main.py", *sys.argv[1:]]),
    }  # fmt: skip


def show(results: Mapping[str, Any], trials: Sequence[Trial], best: Trial, run_dir: Path) -> None:
    """What a search ends with on the terminal."""
    shared = len({tuple(trial.sites) for trial in trials}) < 2
    head = ("", *(() if shared else ("sites",)), "lr", *SHOWN, "objective", "shift / weight", "")
    rows = []
    for trial in sorted(trials, key=lambda one: (one.sites, one.lr)):
        scores = [cell((trial.scores or {}).get(name), ".3f") for name in SHOWN]
        numbers = [f"{trial.lr:.1e}", *scores, cell(trial.objective, "+.3f"), cell(trial.relative_shift, ".1%")]
        mark = "*" if trial is best else ""
        rows.append((mark, *(() if shared else (" ".join(trial.sites),)), *numbers, trial.error or ""))
    print(aligned(head, rows, left=(0, len(head) - 1) if shared else (0, 1, len(head) - 1)))
    if not (best.objective or 0.0) > 0:
        log.warning("tune=true: no step size gained more than it lost; look at the sites, or at the records")
    print(f"written to {run_dir}")
    if results.get("report"):
        print(f"report: {results['report']}")
    print(f"use it: {results['tune']['use']}")
