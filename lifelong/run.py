"""One run: check, load, score, edit step after step, score again, leave a record."""

from __future__ import annotations

import logging
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import OmegaConf
from transformers import PreTrainedTokenizerBase

from config.check import ConfigError, RunError, check_values
from config.editors import LearnedConfig
from config.schema import Config
from config.sizes import SIZES
from data.source import file_hashes
from editor.base import Stopwatch
from editor.networks import check_checkpoint
from exports.delta import base_identity
from exports.save import check_export, save_edited
from files import read_json
from glue_eval.evaluate import DownstreamEvaluator
from lifelong import origin as origins
from lifelong import ranks
from lifelong.downstream import Downstream
from lifelong.evaluation import Evaluation, OverTime, headline
from lifelong.fullness import load_of
from lifelong.judge import reach_judge
from lifelong.loop import Loop, Watcher
from lifelong.open_keys import as_settled
from lifelong.origin import Origin
from lifelong.recorder import Recorder, cpu_seconds, peak_memory, versions
from lifelong.resume import Checkpoints
from lifelong.scored_model import ScoredModel
from lifelong.session import Session, check_editor, open_session
from lifelong.setup import Data, prepare, warm_up_steps
from lifelong.status import StopRequests, writing
from model import resolve_device, tokenizer_sha256
from report.metrics import Measured, described
from report.terminal import downstream_table, print_examples, print_metrics, remarks

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """A run that was checked: where and on what it runs, its records, and the checkpoint that it goes on from."""

    cfg: Config
    run_dir: Path
    device: torch.device
    solve_device: torch.device
    data: Data
    tokenizer: PreTrainedTokenizerBase
    downstream: DownstreamEvaluator | None
    checkpoints: Checkpoints
    newest: tuple[Path, dict[str, Any]] | None
    origin: Origin | None = None
    """What a run that continues from another starts from."""


def check(cfg: Config) -> None:
    """Refuse what cannot work, as far as that shows without data or model.

    Raises:
        ConfigError: names the key, its value and what would be right.
    """
    check_values(cfg)
    kind = check_editor(cfg)
    for key in ("save_checkpoint", "load_checkpoint"):
        if getattr(cfg.editor, key, None) and not kind.trains:
            log.warning("editor.%s has no effect on editor=%s, which trains nothing", key, cfg.editor.name)
    learns = cfg.editor if kind.trains and not cfg.continue_from else None
    assert learns is None or isinstance(learns, LearnedConfig)
    if learns and learns.load_checkpoint:
        check_checkpoint(learns.load_checkpoint, learns, cfg.model.edit_modules)
    if learns and not learns.load_checkpoint and cfg.dataset.train_path is None:
        raise ConfigError(
            f"dataset.train_path=null: editor={cfg.editor.name} learns from training records; "
            "name a file of them, or use editor=stableedit"
        )
    if kind.reads(cfg.editor) and not cfg.continue_from and cfg.dataset.train_path is None:
        raise ConfigError("dataset.train_path=null: editor.text=records reads training records; name a file of them")
    if cfg.model_cache:
        check_export(cfg)
    if cfg.resume and not Path(cfg.resume).is_dir():
        raise ConfigError(f"resume={cfg.resume}: no such folder; name the run directory of a run that was stopped")


def check_writable(cfg: Config, run_dir: Path) -> None:
    """Refuse a run directory or a cache that nothing can be written to.

    Raises:
        ConfigError: names the key, the folder and why.
    """
    folders = {"hydra.run.dir": str(run_dir), "editor.cache_dir": cfg.editor.cache_dir}
    folders["eval.cache_dir"] = cfg.eval.cache_dir if cfg.eval.before else None
    for key, folder in folders.items():
        try:
            if folder is not None:
                Path(folder).expanduser().mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=Path(folder).expanduser()).close()
        except (OSError, RuntimeError) as error:  # the latter of a home that nobody knows
            null = ", null for none" if "cache" in key else ""
            raise ConfigError(f"{key}={folder}: cannot be written ({error}); name another folder{null}") from error


def as_dict(cfg: Config) -> dict[str, Any]:
    """The configuration in JSON's types."""
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.structured(cfg), enum_to_str=True))


def done_before(cfg: Config, run_dir: Path) -> dict[str, Any] | None:
    """The results of a run that is done, shown again; None where it is not, or where something else is asked for."""
    try:
        results = read_json(run_dir / "results.json")
        found = results["config"] | {"resume": cfg.resume, "verbose": cfg.verbose}
        if found != as_settled(as_dict(cfg), found):
            return None
    except (OSError, ValueError, LookupError, TypeError):
        return None
    show(results, run_dir)
    return dict(results)


def plan_run(cfg: Config, run_dir: Path) -> Plan:
    """Check everything that can be checked before a model loads, and open the records.

    Raises:
        ConfigError, DataError: bad input.
    """
    check(cfg)
    run_dir = Path(cfg.resume) if cfg.resume else run_dir
    device = resolve_device("model_device", cfg.model_device)
    solve_device = device if cfg.editor_device == "auto" else resolve_device("editor_device", cfg.editor_device)
    downstream = DownstreamEvaluator(cfg.downstream, run_dir) if cfg.downstream_eval_steps else None
    origin = origins.read_once(cfg, as_dict(cfg), run_dir) if cfg.continue_from else None
    data, tokenizer = prepare(cfg)
    if origin is not None:
        origin.check_model(cfg, tokenizer)
    for path, rows in data.skipped.items():
        log.warning("%s: %d bad rows are skipped: %s", path, len(rows), list(rows)[:20])
    files = file_hashes(cfg.dataset.cache_dir, data.edits, data.training) | {"tokenizer": tokenizer_sha256(tokenizer)}
    checkpoints = Checkpoints(run_dir, as_dict(cfg), files)
    newest = checkpoints.newest() if cfg.resume else None
    check_writable(cfg, run_dir)
    return Plan(cfg, run_dir, device, solve_device, data, tokenizer, downstream, checkpoints, newest, origin)


def run(cfg: Config, run_dir: Path) -> dict[str, Any]:
    """The whole run; returns what it writes to results.json.

    Raises:
        ConfigError, DataError: bad input, before any model is loaded.
        Interrupted, NumericsError: as Loop.run.
        RunError: a GPU's memory is not enough; the weights did not change, and results.json is written all the same.
    """
    watch = Stopwatch()
    with watch("check"):
        plan = plan_run(cfg, run_dir)
        reach_judge(cfg.eval)
    with writing("hydra.run.dir", plan.run_dir), enough_memory(plan.run_dir), ExitStack() as stack:
        with watch("load"):
            session = stack.enter_context(open_session(cfg, plan.tokenizer, plan.device, plan.solve_device))
        ranks.share(session)
        identity = base_identity(session.model, cfg.model.edit_modules) if cfg.model_cache else None
        if plan.origin is not None:
            plan.origin.begin(session, plan.run_dir)
        name = f"{cfg.dataset.name}_{cfg.model.name}_{cfg.editor.name}"
        recorder = Recorder(plan.run_dir, cfg.wandb, name, plan.checkpoints.config, resumes=plan.newest is not None)
        stack.enter_context(recorder)
        loop, evaluation = assemble(plan, session, recorder, watch)
        results = finish(cfg, session, recorder, carry_out(plan, loop, evaluation), identity)
        evaluation.forget()
    show(results, plan.run_dir)
    if session.editor.writes and not loop.changed:
        raise RunError("no edited weight changed: every shift was zero or lost to rounding")
    return results


@contextmanager
def enough_memory(run_dir: Path) -> Iterator[None]:
    """Say what takes less, by a RunError, where a GPU's memory is not enough."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        first, sizes = str(error).partition(". ")[0], [f"{key} (auto is {size['cuda']})" for key, size in SIZES.items()]
        raise RunError(
            f"out of memory ({first}): lower {', '.join(sizes)}; with a lower one resume={run_dir} goes on from the "
            "last state that was saved. Or start again with fewer sites, or model.precision=bfloat16"
        ) from error


def assemble(plan: Plan, session: Session, recorder: Recorder, watch: Stopwatch) -> tuple[Loop, Evaluation]:
    """The loop over a session, with what measures it."""
    cfg, stop = plan.cfg, StopRequests(plan.run_dir)
    evaluation = Evaluation(session, plan.data, plan.checkpoints.files, recorder, stop.check)
    watchers: dict[str, Watcher] = {"over_time": OverTime(evaluation, watch)}
    if plan.downstream is not None:
        watchers["downstream"] = Downstream(cfg, plan.downstream, session, recorder, watch)
    owners = {"evaluation": evaluation}
    return Loop(cfg, session, plan.data, recorder, plan.checkpoints, watchers, owners, watch, stop), evaluation


def carry_out(plan: Plan, loop: Loop, evaluation: Evaluation) -> dict[str, Any]:
    """Score, edit, score again; the numbers of results.json."""
    cfg, watch = plan.cfg, loop.watch
    with loop.stop:
        if cfg.eval.before:
            with watch("evaluate before"):
                evaluation.measure_before()
        if plan.newest:
            plan.checkpoints.load(*plan.newest, loop.session, loop.owners)
            log.info("resumed from %s: %d steps, %d edits", plan.newest[0], loop.position, loop.edits)
        if evaluation.before is not None and not evaluation.logged_before:
            evaluation.log(evaluation.before, edits=0)
            loop.save()
        loop.run()
        loop.session.ranks.compare()
        with watch("evaluate after"):
            after, examples = evaluation.measure_after()
        evaluation.log(after, edits=loop.edits)
    more = {"examples": examples, "retention_by_age": evaluation.ages.told(), "worst": evaluation.worst.told()}
    more |= evaluation.earlier.told() | evaluation.judging.told()
    return _results(plan, loop, evaluation.before, after) | more


def _results(plan: Plan, loop: Loop, before: Measured | None, after: Measured) -> dict[str, Any]:
    cfg, editor = plan.cfg, loop.session.editor
    counts = {"edits": loop.edits, "steps": loop.position, "warm_up_steps": warm_up_steps(cfg)}
    counts |= {"tokens": loop.tokens, "skipped_rows": sum(map(len, plan.data.skipped.values()))}
    results = {
        **headline(after),
        "pre": headline(before) if before is not None else None,
        "metrics": described(after, before, loop.edits, cfg.edit_steps),
        "counts": counts,
        "load": load_of(loop.edits + loop.recorder.edits_before, editor.sites),
        "retries": dict(editor.retries),
        "seconds": dict(loop.watch.seconds),
        "skipped": plan.data.skipped,
        "config": plan.checkpoints.config,
    }
    if loop.training and loop.training.losses:
        results["train"] = loop.training.losses | {"reg_coef": loop.training.cfg.reg_coef}
    downstream = loop.watchers.get("downstream")
    if isinstance(downstream, Downstream):
        results["downstream"] = downstream.found
    spectrum = editor.spectrum()
    return results | ({"spectrum": spectrum} if spectrum else {})


def finish(
    cfg: Config, session: ScoredModel, recorder: Recorder, results: dict[str, Any], identity: dict[str, Any] | None
) -> dict[str, Any]:
    """Complete the results and write them, with the edited model where `identity` (of its base) is given; report."""
    results |= {"peak_memory": peak_memory(), "cpu_seconds": cpu_seconds(), "versions": versions()}
    results["command"] = shlex.join(["python", "main.py", *sys.argv[1:]])
    recorder.finish(results)  # before the model is saved: a full disk must not take the numbers
    if identity is not None:
        then = f"the numbers are in {recorder.run_dir}; make room and save the model by resume={recorder.run_dir}"
        with writing("model_cache_dir", cfg.model_cache_dir, f"{then} model_cache_dir=ANOTHER"):
            results["model_cache_dir"] = str(save_edited(cfg, session.model, session.tokenizer, identity, results))
        recorder.finish(results)
    return results | ({"report": write_report(recorder.run_dir)} if cfg.report else {})


def write_report(run_dir: Path) -> str | None:
    """The report's path; a report that cannot be made takes nothing from the run."""
    import report  # matplotlib takes a second to load

    try:
        return str(report.make([run_dir]))
    except OSError as error:
        log.warning("the report could not be written (%s); the numbers are in %s", error, run_dir / "results.json")
    except Exception:
        log.exception("the report could not be made; the numbers are in %s", run_dir / "results.json")
    return None


def show(results: dict[str, Any], run_dir: Path) -> None:
    """What a run ends with on the terminal."""
    print_examples(results["examples"])
    print_metrics(results["metrics"])
    for line in remarks(results):
        print(line)
    downstream = downstream_table(results.get("downstream", []))
    if downstream:
        print(downstream)
    print(f"written to {run_dir}")
    if results.get("report"):
        print(f"report: {results['report']}")
