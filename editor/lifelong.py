"""The lifelong loop: check, load, score, write step after step, score again, leave a record."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from config.check import check_values, without_effect
from config.schema import Config, PreheatMode
from data.base import Edit, EditRecords
from data.batches import step_batches, steps
from data.source import open_records, open_training
from editor import checkpoint
from editor.base import Editor, StepReport, Stopwatch
from editor.cache import RowCache, row_cache
from editor.hyper import HyperEditor
from editor.malmen import Malmen
from editor.mend import Mend
from editor.metrics import score
from editor.rledit import RLEdit
from editor.sites import check_sites, find_sites
from editor.stableedit import StableEdit
from model import check_save_folder, load_model, load_tokenizer, model_skeleton, resolve_device, save_model
from report.recorder import Recorder, peak_memory, results_table, versions

log = logging.getLogger(__name__)

EDITORS = {"stableedit": StableEdit, "ultraedit": StableEdit}
LEARNED: dict[str, type[HyperEditor]] = {"malmen": Malmen, "mend": Mend, "rledit": RLEdit}


@dataclass(frozen=True, slots=True)
class Data:
    """The records of a run, validated: what is edited, and what warms up or trains."""

    edits: EditRecords
    training: EditRecords | None


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model ready to be edited."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def warm_up_steps(cfg: Config) -> int:
    """How many warm-up steps run: 0 with preheat_mode none, and for editors that train instead."""
    if cfg.editor.preheat_mode is PreheatMode.none or cfg.editor.name in LEARNED:
        return 0
    return cfg.num_seq_wikibigedit if cfg.dataset.name == "wikibigedit" else cfg.num_seq_zsre


def warm_up_position(mode: PreheatMode, num_seq: int) -> int | None:
    """Index of the step that the warm-up precedes (DESIGN section 2), None for never."""
    return {
        PreheatMode.start: 0,
        PreheatMode.q1: num_seq // 4,
        PreheatMode.middle: num_seq // 2,
        PreheatMode.q3: 3 * num_seq // 4,
        PreheatMode.end: num_seq - 1,
        PreheatMode.none: None,
    }[mode]


def schedule(cfg: Config, data: Data) -> Iterator[tuple[bool, list[Edit]]]:
    """Every step of the run in order, as (warm-up?, its edits)."""
    position = warm_up_position(cfg.editor.preheat_mode, cfg.num_seq)
    for index, edits in enumerate(steps(iter(data.edits), cfg.dataset.n_edits)):
        if index == position and warm_up_steps(cfg):
            assert data.training is not None
            for training in steps(iter(data.training), cfg.dataset.n_edits):
                yield True, training
        yield False, edits


def open_data(cfg: Config) -> Data:
    """Validate and open the records that the run will read.

    Raises:
        DataError: a file that is missing, broken or too short; a bad row.
    """
    n_edits, warm_up = cfg.dataset.n_edits, warm_up_steps(cfg)
    edits = open_records(cfg.dataset, cfg.dataset.valid_path, cfg.seed, cfg.num_seq, "num_seq")
    key = "num_seq_wikibigedit" if cfg.dataset.name == "wikibigedit" else "num_seq_zsre"
    if cfg.editor.name in LEARNED:
        training = None if cfg.editor.load_checkpoint else open_training(cfg.dataset, cfg.seed, cfg.num_seq)
    else:
        training = open_records(cfg.dataset, cfg.dataset.train_path, cfg.seed, warm_up, key) if warm_up else None
    assert len(edits) == cfg.num_seq * n_edits
    return Data(edits, training)


def load(cfg: Config, device: torch.device) -> Loaded:
    """Load model and tokenizer, after checking the sites on a model without weights."""
    check_sites(model_skeleton(cfg.model), cfg.model.edit_modules)
    return Loaded(load_model(cfg.model, device), load_tokenizer(cfg.model))


def build_editor(cfg: Config, loaded: Loaded, cache: RowCache, solve_device: torch.device) -> Editor:
    """The editor that the config names, at work on the loaded model."""
    sites = find_sites(loaded.model, cfg.model.edit_modules, masters=cfg.editor.float32_masters)
    if cfg.editor.name in LEARNED:
        return LEARNED[cfg.editor.name](cfg.editor, loaded.model, sites, cache, solve_device, cfg.seed)
    return EDITORS[cfg.editor.name](cfg.editor, loaded.model, sites, cache, solve_device)


def evaluate(cfg: Config, loaded: Loaded, data: Data, label: str) -> dict[str, float]:
    """ES, GS, LS and their kin over all edits of the run."""
    return score(
        loaded.model,
        loaded.tokenizer,
        data.edits,
        mhop=cfg.dataset.eval_mhop,
        tokens_per_batch=cfg.eval.tokens_per_batch,
        total=len(data.edits),
        label=label,
    )


def train(cfg: Config, loaded: Loaded, data: Data, editor: HyperEditor, recorder: Recorder) -> dict[str, float]:
    """Train a learned editor's networks, or load them; returns the last step's losses."""
    if cfg.editor.load_checkpoint:
        checkpoint.load(editor, cfg.editor.load_checkpoint)
        return {}
    assert data.training is not None
    per_epoch, epochs = len(data.training) // cfg.dataset.n_edits, cfg.editor.n_epochs or 0
    losses: dict[str, float] = {}
    with tqdm(total=per_epoch * epochs, desc="train", unit="step", disable=None, leave=False) as bar:
        for epoch in range(epochs):
            stream = steps(iter(data.training), cfg.dataset.n_edits)
            batches = (step_batches(loaded.tokenizer, edits, cfg.dataset.batch_size) for edits in stream)
            for index, report in enumerate(editor.train_epoch(batches)):
                recorder.log({"event": "train", "epoch": epoch, "index": index, **asdict(report)})
                losses = {"gen_loss": report.gen_loss, "loc_loss": report.loc_loss}
                bar.set_postfix({name: f"{value:.4f}" for name, value in losses.items()})
                bar.update()
    editor.last_shifts.clear()
    if cfg.editor.save_checkpoint:
        checkpoint.save(editor, recorder.run_dir / "checkpoint")
    return losses


def write_steps(cfg: Config, loaded: Loaded, data: Data, editor: Editor, recorder: Recorder) -> Iterator[StepReport]:
    """Run every step of the schedule, recording and yielding its report."""
    total = cfg.num_seq + warm_up_steps(cfg)
    written = 0
    with tqdm(total=total, desc="edit", unit="step", disable=None, leave=False) as bar:
        for index, (warm_up, edits) in enumerate(schedule(cfg, data)):
            batches = step_batches(loaded.tokenizer, edits, cfg.dataset.batch_size)
            report = editor.step(batches, warm_up=warm_up)
            written += 0 if warm_up else len(edits)
            phase = "warm-up" if warm_up else "edit"
            recorder.log({"event": "step", "index": index, "phase": phase, "edits": written, **asdict(report)})
            bar.set_postfix(loss=f"{report.loss:.3f}")
            bar.update()
            yield report


def run(cfg: Config, run_dir: Path) -> dict[str, Any]:
    """The whole run; returns what it writes to results.json.

    Raises:
        ConfigError, DataError: bad input, before any model is loaded.
    """
    check_values(cfg)
    for warning in without_effect(cfg.editor):
        log.warning(warning)
    if cfg.editor.name in LEARNED and cfg.editor.load_checkpoint:
        checkpoint.check(cfg.editor, cfg.model.edit_modules)
    if cfg.model_cache:
        check_save_folder(cfg.model_cache_dir or "")
    device = resolve_device("model_device", cfg.model_device)
    solve_device = device if cfg.editor_device == "auto" else resolve_device("editor_device", cfg.editor_device)
    watch = Stopwatch()
    with watch("check data"):
        data = open_data(cfg)
    with watch("load"):
        loaded = load(cfg, device)
    config = OmegaConf.to_container(OmegaConf.structured(cfg), enum_to_str=True)
    name = f"{cfg.dataset.name}_{cfg.model.name}_{cfg.editor.name}"
    with (
        Recorder(run_dir, cfg.wandb, name, config) as recorder,
        row_cache(cfg.editor.cache_dir, solve_device) as cache,
    ):
        editor = build_editor(cfg, loaded, cache, solve_device)
        results = lifelong(cfg, loaded, data, editor, recorder, watch)
        results |= {"peak_memory": peak_memory(), "versions": versions(), "config": config}
        if cfg.model_cache and cfg.model_cache_dir:
            results["model_cache_dir"] = str(save_model(loaded.model, loaded.tokenizer, cfg.model_cache_dir))
        recorder.finish(results)
    return results


def lifelong(
    cfg: Config, loaded: Loaded, data: Data, editor: Editor, recorder: Recorder, watch: Stopwatch
) -> dict[str, Any]:
    """Score, write every step, score again."""
    before = None
    if cfg.eval.before:
        with watch("evaluate before"):
            before = evaluate(cfg, loaded, data, "evaluate before")
        recorder.log({"event": "evaluate", "edits": 0, **before})
    trained = {}
    if isinstance(editor, HyperEditor):
        with watch("train"):
            trained = {"train": train(cfg, loaded, data, editor, recorder) | {"reg_coef": cfg.editor.reg_coef}}
    tokens = steps_done = 0
    for report in write_steps(cfg, loaded, data, editor, recorder):
        tokens += report.tokens
        steps_done += 1
        for phase, seconds in report.seconds.items():
            watch.seconds[f"step: {phase}"] += seconds
    with watch("evaluate after"):
        after = evaluate(cfg, loaded, data, "evaluate after")
    recorder.log({"event": "evaluate", "edits": len(data.edits), **after})
    print(results_table(before, after))
    counts = {
        "edits": len(data.edits),
        "steps": steps_done,
        "warm_up_steps": steps_done - cfg.num_seq,
        "tokens": tokens,
    }
    return {**after, "pre": before, **trained, "counts": counts, "seconds": dict(watch.seconds)}
