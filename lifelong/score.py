"""Scoring of any model without editing: python main.py score=MODEL score_base=BASE ...   (docs/evaluation.md)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from config.check import ConfigError, check_values
from config.schema import Config, Precision
from config.scoring import unused
from data.source import file_hashes
from editor.base import Stopwatch
from files import finite, read_json
from glue_eval.evaluate import DownstreamEvaluator, abilities_before
from lifelong.any_model import AUTO, AnyModel, find
from lifelong.evaluation import Evaluation, headline
from lifelong.judge import reach_judge
from lifelong.recorder import Recorder
from lifelong.run import as_dict, check_writable, finish, show
from lifelong.scored_model import ScoredModel
from lifelong.setup import Data, checked_tokenizer, open_data
from lifelong.status import StopRequests, writing
from model import check_sound, resolve_device
from report.metrics import Measured, described

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two models of a comparison, checked: not a weight of it is loaded yet."""

    model: AnyModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device

    def load(self) -> PreTrainedModel:
        """The model, sound.

        Raises:
            ConfigError: as AnyModel.load; weights that are not finite, a model that cannot be run.
        """
        model = self.model.load(self.device)
        check_sound(self.model.name, model)
        return model


@dataclass(frozen=True, slots=True)
class Scoring:
    """A scoring that was checked: the model, its base where one is named, and the records."""

    cfg: Config
    run_dir: Path
    scored: Side
    base: Side | None
    data: Data
    downstream: DownstreamEvaluator | None


def plan_scoring(cfg: Config, run_dir: Path) -> Scoring:
    """Check everything that can be checked before a model loads, and open the records.

    Raises:
        ConfigError, DataError: bad input.
    """
    check_values(cfg)
    if cfg.resume:
        _check_same(cfg, run_dir)
    device = resolve_device("model_device", cfg.model_device)
    models = both(cfg, device)
    downstream = DownstreamEvaluator(cfg.downstream, run_dir) if cfg.downstream_eval_steps else None
    sides, rows, data = [], [], None
    for model in models:
        skeleton, its = model.skeleton(), replace(cfg, model=model.whole)
        tokenizer = checked_tokenizer(its, skeleton)
        opened = open_data(its, skeleton, tokenizer, training=False)  # of the base too: its context may be shorter
        cfg.num_seq = its.num_seq
        data = data or opened
        sides.append(Side(model, tokenizer, device))
        rows.append(cast(Tensor, skeleton.get_input_embeddings().weight).shape[0])
    assert data is not None
    if len(sides) > 1 and (sides[0].tokenizer.get_vocab() != sides[1].tokenizer.get_vocab() or rows[0] != rows[1]):
        raise ConfigError(f"score_base={cfg.score_base}: has other tokens than {cfg.score}; name a model with the same")
    for path, bad in data.skipped.items():
        log.warning("%s: %d bad rows are skipped: %s", path, len(bad), list(bad)[:20])
    check_writable(cfg, run_dir)
    return Scoring(cfg, run_dir, sides[0], sides[1] if len(sides) > 1 else None, data, downstream)


def both(cfg: Config, device: torch.device) -> list[AnyModel]:
    """The model that is scored, and the one that it is compared with, in the same dtype.

    Raises:
        ConfigError: as lifelong.any_model.find; no base is known, or it is not the delta's.
    """
    assert cfg.score is not None
    named = None if cfg.score_base in (None, AUTO) else cfg.score_base
    scored = find("score", cfg.score, cfg.model, device, base=named)
    if cfg.score_base is None:
        return [scored]
    other = named or scored.base
    if other is None:
        raise ConfigError(f"score_base=auto: nothing says which model {cfg.score} was made from; score_base=MODEL does")
    how = replace(cfg.model, precision=Precision(str(scored.dtype).removeprefix("torch.")))
    return [scored, find("score_base", other, how, device)]


def _check_same(cfg: Config, run_dir: Path) -> None:
    """Refuse to write over the numbers of another scoring."""
    try:
        then = read_json(run_dir / "results.json")["config"]
    except (OSError, ValueError, LookupError, TypeError):
        return
    now = as_dict(cfg)
    if changed := [key for key in now if key not in ("resume", "verbose") and then.get(key) != now[key]]:
        raise ConfigError(f"resume={cfg.resume}: holds numbers with another {changed[0]}; leave resume out")
    log.info("resume: a scoring keeps no checkpoint: it starts again")


def score(cfg: Config, run_dir: Path, words: Sequence[str] = ()) -> dict[str, Any]:
    """The whole scoring; returns what it writes to results.json. `words` are the command line's.

    Raises:
        ConfigError, DataError: bad input, before any model is loaded.
        Interrupted: after a signal.
    """
    watch = Stopwatch()
    if idle := unused(words):
        log.warning("no effect, since score=%s edits nothing: %s", cfg.score, ", ".join(idle))
    with watch("check"):
        plan = plan_scoring(cfg, run_dir)
        reach_judge(cfg.eval)
    with writing("hydra.run.dir", run_dir, "make room, then start again"), ExitStack() as stack:
        first = plan.base or plan.scored
        with watch("load"):
            model = ScoredModel(cfg, first.load(), first.tokenizer)
        name = f"{cfg.dataset.name}_{cfg.model.name}_score"
        recorder = stack.enter_context(Recorder(run_dir, cfg.wandb, name, as_dict(cfg)))
        results = finish(cfg, model, recorder, measure(plan, model, recorder, watch), None)
    show(results, run_dir)
    return results


def measure(plan: Scoring, model: ScoredModel, recorder: Recorder, watch: Stopwatch) -> dict[str, Any]:
    """Score the base, which `model` stands for at first, and then the model; the numbers of results.json."""
    edits, stop, found = len(plan.data.edits), StopRequests(plan.run_dir), []
    files = file_hashes(plan.cfg.dataset.cache_dir, plan.data.edits)
    evaluation = Evaluation(model, plan.data, files, recorder, stop.check)
    with stop:
        if plan.base:
            with watch("evaluate before"):
                evaluation.measure_before()
            assert evaluation.before is not None
            evaluation.log(evaluation.before, edits=0)
            found += abilities(plan, model, recorder, watch, 0)
            with watch("load"):
                model.become(plan.scored.load, plan.scored.tokenizer)
        with watch("evaluate after"):
            after, examples = evaluation.measure_after()
        evaluation.log(after, edits=edits)
        found += abilities(plan, model, recorder, watch, edits)
    evaluation.forget()
    results = _results(plan, evaluation.before, after) | {"seconds": dict(watch.seconds)}
    results |= {"examples": examples, "worst": evaluation.worst.told()} | evaluation.judging.told()
    return results | ({"downstream": found} if plan.downstream else {})


def abilities(
    plan: Scoring, model: ScoredModel, recorder: Recorder, watch: Stopwatch, edits: int
) -> list[dict[str, Any]]:
    """The downstream tasks' figures, where they are asked for: of the base (no edits) or of the model."""
    if plan.downstream is None:
        return []
    with watch("downstream"), writing("eval.cache_dir", plan.cfg.eval.cache_dir):
        if edits:
            figures = plan.downstream.evaluate(model.model, model.tokenizer, edits)
        else:
            figures = abilities_before(plan.cfg, plan.downstream, model.model, model.tokenizer)
    found = finite({"edits": edits, **figures})
    recorder.log({"event": "downstream", **found})
    return [found]


def _results(plan: Scoring, before: Measured | None, after: Measured) -> dict[str, Any]:
    edits, scored = len(plan.data.edits), plan.scored.model
    told = {"model": scored.name, "kind": scored.kind, "dtype": str(scored.dtype).removeprefix("torch.")}
    return {
        **headline(after),
        "pre": headline(before) if before is not None else None,
        "metrics": described(after, before, edits, plan.cfg.edit_steps),
        "counts": {"edits": edits, "steps": 0, "skipped_rows": sum(map(len, plan.data.skipped.values()))},
        "scored": told | {"base": plan.base.model.name if plan.base else None},
        "skipped": plan.data.skipped,
        "config": as_dict(plan.cfg),
    }
