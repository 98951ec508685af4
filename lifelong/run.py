"""The lifelong loop: check, load, score, write step after step, score again, leave a record."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from tqdm import tqdm

from config.check import LEARNED, ConfigError, RunError, check_values, without_effect
from config.schema import Config
from data.base import DataError, Edit
from data.batches import StepBatches, step_batches, steps
from data.source import file_hashes
from editor import frozen, saved_networks
from editor.base import Editor, StepReport, Stopwatch
from editor.cache import row_cache
from editor.learned import HyperEditor, TrainReport
from exports.identity import base_identity
from exports.save import check_export
from glue_eval.abilities import abilities_before
from glue_eval.evaluate import DownstreamEvaluator
from lifelong import resume
from lifelong.evaluation import Evaluation, headline
from lifelong.finish import finish, show
from lifelong.interrupt import Interrupted, StopRequests
from lifelong.over_time import OverTime
from lifelong.recorder import Recorder
from lifelong.resume import Progress
from lifelong.sample import known_facts
from lifelong.setup import Data, Loaded, build_editor, prepare, schedule, warm_up_steps
from model import load_model, resolve_device
from nets import NumericsError
from report.metrics import Measured, described

log = logging.getLogger(__name__)


class UnchangedError(RunError):
    """The run ended with the weights that it started with."""


class Belongs:
    """What ties a checkpoint to a run: its resolved config and the hashes of its files; and the run's name."""

    def __init__(self, cfg: Config, data: Data) -> None:
        self.name = f"{cfg.dataset.name}_{cfg.model.name}_{cfg.editor.name}"
        self.config: dict[str, Any] = OmegaConf.to_container(OmegaConf.structured(cfg), enum_to_str=True)
        self.files = file_hashes(cfg.dataset.cache_dir, data.edits, data.training)
        for path, rows in data.skipped.items():
            log.warning("%s: %d bad rows are skipped: %s", path, len(rows), list(rows)[:20])


class Run:
    """One lifelong run over a loaded model: what happens in which order, and what is left behind."""

    def __init__(
        self,
        cfg: Config,
        loaded: Loaded,
        data: Data,
        editor: Editor,
        recorder: Recorder,
        belongs: Belongs,
        downstream: DownstreamEvaluator | None = None,
    ) -> None:
        self.belongs, self.downstream = belongs, downstream
        self.cfg, self.loaded, self.data, self.editor, self.recorder = cfg, loaded, data, editor, recorder
        self.progress = Progress()
        self.watch = Stopwatch()
        self._logged_retries = 0
        self.stop = StopRequests(recorder.run_dir)
        self.evaluation = Evaluation(cfg, loaded, data, belongs.files, recorder.run_dir, self.stop.check)
        self._over_time: OverTime | None = None

    def measure_before(self) -> None:
        """Score the model as it was loaded; a run that is resumed finds it done. Call before restore."""
        if self.cfg.eval.before:
            with self.watch("evaluate before"):
                self.evaluation.measure_before()

    def batches(self, edits: list[Edit]) -> StepBatches:
        """The micro-batches of a step's edits."""
        cfg = self.cfg.dataset
        return step_batches(self.loaded.tokenizer, edits, cfg.batch_size, cfg.prompt_format)

    def restore(self, folder: Path, state: dict[str, Any]) -> None:
        """Go on from a checkpoint: tensors, progress, and metrics.jsonl as it was then."""
        resume.load(folder, self.editor)
        self.progress = Progress(**state["progress"])
        self.watch.seconds.update(self.progress.seconds)
        self.editor.retries.update(self.progress.retries)
        self.recorder.truncate(self.progress.metrics_bytes)
        log.info("resumed from %s: %d steps, %d edits", folder, self.progress.position, self.progress.edits)

    def save(self) -> None:
        """Write a checkpoint of the state between two steps."""
        self.progress.seconds = dict(self.watch.seconds)
        self.progress.retries = dict(self.editor.retries)
        self.progress.metrics_bytes = self.recorder.position()
        with self.watch("checkpoint"):
            resume.save(self.recorder.run_dir, self.editor, self.progress, self.belongs.config, self.belongs.files)

    def all_steps(self) -> dict[str, Any]:
        """Train, write every step, score; the numbers of results.json.

        Raises:
            Interrupted: after a signal, with the state saved.
            NumericsError: with step, site and edits, and the state before the step saved.
        """
        before, progress = self.evaluation.before, self.progress
        if before is not None and not progress.logged_before:
            self._log_evaluation(before, edits=0)
            progress.logged_before = True
            self._save_if(self.cfg.checkpoint.every > 0)
        if isinstance(self.editor, HyperEditor) and progress.phase == "train":
            self.train(self.editor)
            progress.phase = "edit"
            self._save_if(self.cfg.checkpoint.every > 0)
        self.write_steps()
        with self.watch("evaluate after"):
            after, examples = self.evaluation.measure_after()
        self._log_evaluation(after, edits=progress.edits)
        counts = {"edits": progress.edits, "steps": progress.position, "warm_up_steps": warm_up_steps(self.cfg)}
        counts |= {"tokens": progress.tokens, "skipped_rows": sum(map(len, self.data.skipped.values()))}
        trained = {"train": progress.losses | {"reg_coef": self.cfg.editor.reg_coef}} if progress.losses else {}
        spectrum = self.editor.spectrum()
        return {
            **headline(after),
            "pre": headline(before) if before is not None else None,
            "metrics": described(after, before, progress.edits, self.cfg.num_seq),
            "examples": examples,
            **trained,
            **({"spectrum": spectrum} if spectrum else {}),
            "counts": counts,
            "retries": dict(self.editor.retries),
            "seconds": dict(self.watch.seconds),
            "skipped": self.data.skipped,
        }

    def _log_evaluation(self, measured: Measured, edits: int) -> None:
        self.recorder.log(
            {"event": "evaluate", "edits": edits, **{name: value for name, (value, _) in measured.items()}}
        )

    def watch_over_time(self, batch: list[Edit]) -> dict[str, Any]:
        """Measure where it is due, before the first step and after every N; what was found, if anything."""
        every, done = self.cfg.eval.every, self.progress.edits // self.cfg.dataset.n_edits
        if not every or done % every or done <= self.progress.watched:
            return {}
        with self.watch("evaluate over time"):
            if self._over_time is None:
                self._over_time = OverTime(self.evaluation)
            found = self._over_time.measure(done, batch)
        self.progress.watched = done
        self.recorder.log({"event": "over_time", **found})
        return found

    def evaluate_downstream(self) -> None:
        """Run the downstream tasks where they are due: before the first step and after every N."""
        every, done = self.cfg.downstream_eval_steps, self.progress.edits // self.cfg.dataset.n_edits
        if self.downstream is None or done % every or done == self.progress.downstream_done:
            return
        with self.watch("downstream"):
            if self.progress.position == 0:
                found = abilities_before(self.cfg, self.downstream, self.loaded.model, self.loaded.tokenizer)
            else:
                found = self.downstream.evaluate(self.loaded.model, self.loaded.tokenizer, self.progress.edits)
        self.progress.downstream_done = done
        self.recorder.log({"event": "downstream", "edits": self.progress.edits, **found})

    def train(self, editor: HyperEditor) -> None:
        """Train a learned editor's networks, or load them."""
        if self.cfg.editor.load_checkpoint:
            saved_networks.load(editor, self.cfg.editor.load_checkpoint)
            return
        with self.watch("train"):
            self._train_epochs(editor)
        editor.last_shifts.clear()
        if self.cfg.editor.save_checkpoint:
            saved_networks.save(editor, self.recorder.run_dir / "checkpoint")

    def _train_epochs(self, editor: HyperEditor) -> None:
        assert self.data.training is not None
        progress, epochs = self.progress, self.cfg.editor.n_epochs or 0
        total = len(self.data.training) // self.cfg.dataset.n_edits * epochs
        with tqdm(total=total, desc="train", unit="step", disable=None, leave=False) as bar:
            bar.update(progress.trained + progress.epoch * (total // epochs))
            for epoch in range(progress.epoch, epochs):
                progress.epoch = epoch
                for report in self._guarded(editor.train_epoch(self._training_batches(editor), progress.trained)):
                    line = {"event": "train", "epoch": epoch, "index": progress.trained, **asdict(report)}
                    self.recorder.log(line)
                    progress.losses = {"gen_loss": report.gen_loss, "loc_loss": report.loc_loss}
                    progress.trained += 1
                    bar.set_postfix({name: f"{value:.4f}" for name, value in progress.losses.items()})
                    bar.update()
                    self._between_steps(progress.trained)
                progress.trained = 0

    def _guarded(self, reports: Iterator[TrainReport]) -> Iterator[TrainReport]:
        """The reports; a number that is not finite saves the state before its step and names it."""
        try:
            yield from reports
        except NumericsError as error:
            self._save_if(self.cfg.checkpoint.every > 0)
            first, n_edits = self.progress.trained * self.cfg.dataset.n_edits, self.cfg.dataset.n_edits
            where = f"training step {self.progress.trained} of epoch {self.progress.epoch}"
            where += f" (training edits {first} to {first + n_edits - 1})"
            raise NumericsError(f"{where}: {error}") from error

    def _training_batches(self, editor: HyperEditor) -> Iterator[StepBatches]:
        """The steps of one pass that are still needed: those ahead, and those to look back on."""
        assert self.data.training is not None
        stream = steps(iter(self.data.training), self.cfg.dataset.n_edits)
        first = max(0, self.progress.trained - editor.lookback + 1)
        for edits in islice(stream, first, None):
            yield self.batches(edits)

    def write_steps(self) -> None:
        """Run the steps of the schedule that are still ahead."""
        progress = self.progress
        total, shown = self.cfg.num_seq + warm_up_steps(self.cfg), {}
        with tqdm(total=total, initial=progress.position, desc="edit", unit="step", disable=None, leave=False) as bar:
            self.watch_over_time([])
            self.evaluate_downstream()
            for warm_up, edits in islice(schedule(self.cfg, self.data), progress.position, None):
                report = self._write_step(edits, warm_up=warm_up)
                found = {} if warm_up else self.watch_over_time(edits)
                shown |= {f"ES of step {found['step']}": f"{found['immediate']['ES']:.2f}"} if found else {}
                shown = dict(list(shown.items())[-1:])
                speed = len(edits) / sum(report.seconds.values())
                bar.set_postfix({"edits/s": f"{speed:.1f}", "loss": f"{report.loss:.3f}", **shown})
                bar.update()
                self._between_steps(progress.position, last=progress.position == total)
                if not warm_up:
                    self.evaluate_downstream()

    def _write_step(self, edits: list[Edit], *, warm_up: bool) -> StepReport:
        progress = self.progress
        rows = f"rows {edits[0].row} to {edits[-1].row}"
        try:
            batches = self.batches(edits)
            report = self.editor.step(batches, warm_up=warm_up)
        except (NumericsError, DataError) as error:
            self._save_if(self.cfg.checkpoint.every > 0)
            phase = "warm-up " if warm_up else ""
            raise NumericsError(f"{phase}step {progress.position} ({rows}): {error}") from error
        if self.editor.retries.total() > self._logged_retries:
            self._logged_retries = self.editor.retries.total()
            log.warning("step %d: decompositions retried so far: %s", progress.position, dict(self.editor.retries))
        progress.position += 1
        progress.edits += 0 if warm_up else len(edits)
        progress.tokens += report.tokens
        progress.changed |= any(site.shift_norm > 0 and site.lost_share < 1 for site in report.sites.values())
        for name, seconds in report.seconds.items():
            self.watch.seconds[f"step: {name}"] += seconds
        line = {"event": "step", "index": progress.position - 1, "phase": "warm-up" if warm_up else "edit"}
        self.recorder.log(line | {"edits": progress.edits, **asdict(report)})
        return report

    def _between_steps(self, done: int, *, last: bool = False) -> None:
        every = self.cfg.checkpoint.every
        self._save_if(every > 0 and (last or done % every == 0 or self.stop.signum is not None))
        self.stop.check()

    def _save_if(self, wanted: bool) -> None:
        if wanted:
            self.save()


def check(cfg: Config) -> None:
    """Refuse what cannot work, as far as that shows without data or model.

    Raises:
        ConfigError: names the key, its value and what would be right.
    """
    check_values(cfg)
    for warning in without_effect(cfg.editor):
        log.warning(warning)
    if cfg.editor.name in LEARNED and cfg.editor.load_checkpoint:
        saved_networks.check(cfg.editor, cfg.model.edit_modules)
    if cfg.model_cache:
        check_export(cfg)
    if cfg.resume and not Path(cfg.resume).is_dir():
        raise ConfigError(f"resume={cfg.resume}: no such folder; name the run directory of a run that was stopped")


def check_writable(run_dir: Path) -> None:
    """Refuse a run directory that nothing can be written to.

    Raises:
        ConfigError: names the folder and why.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=run_dir).close()
    except OSError as error:
        raise ConfigError(f"hydra.run.dir={run_dir}: cannot be written ({error}); name another folder") from error


def run(cfg: Config, run_dir: Path) -> dict[str, Any]:
    """The whole run; returns what it writes to results.json.

    Raises:
        ConfigError, DataError: bad input, before any model is loaded.
        Interrupted, NumericsError: as Run.all_steps.
        UnchangedError: the weights did not change; results.json is written all the same.
    """
    check(cfg)
    run_dir = Path(cfg.resume) if cfg.resume else run_dir
    device = resolve_device("model_device", cfg.model_device)
    solve_device = device if cfg.editor_device == "auto" else resolve_device("editor_device", cfg.editor_device)
    downstream = DownstreamEvaluator(cfg.downstream, run_dir) if cfg.downstream_eval_steps else None
    watch = Stopwatch()
    with watch("check"):
        prepared = prepare(cfg)
        known_facts(cfg.eval, cfg.seed)  # refuses a bad file before the model loads
        belongs = Belongs(cfg, prepared.data)
        found = resume.newest(run_dir) if cfg.resume else None
        if found:
            resume.check_same(found[1], belongs.config, belongs.files)
    check_writable(run_dir)
    with watch("load"):
        loaded = Loaded(load_model(cfg.model, device), prepared.tokenizer)
        frozen.install(loaded.model, cfg.model)
    identity = base_identity(loaded.model, cfg.model.edit_modules) if cfg.model_cache else None
    with (
        Recorder(run_dir, cfg.wandb, belongs.name, belongs.config) as recorder,
        row_cache(cfg.editor.cache_dir, solve_device) as cache,
    ):
        editor = build_editor(cfg, loaded, cache, solve_device)
        job = Run(cfg, loaded, prepared.data, editor, recorder, belongs, downstream)
        job.watch.seconds.update(watch.seconds)
        with job.stop:
            job.measure_before()
            if found:
                job.restore(*found)
            elif cfg.resume:
                recorder.truncate(0)
            results = job.all_steps()
        results = finish(cfg, loaded, recorder, results | {"config": belongs.config}, identity)
        job.evaluation.forget()
    show(results, run_dir)
    if not job.progress.changed:
        raise UnchangedError("no edited weight changed: every shift was zero or lost to rounding")
    return results


__all__ = ["Interrupted", "Run", "UnchangedError", "check", "run"]
