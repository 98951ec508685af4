"""A model under editing: what the command line's runs work on, and Python (docs/python.md)."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Literal, overload

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from config.check import ConfigError, check_values
from config.progress import Progress
from config.schema import Config
from data.base import DataError, Edit, place
from data.batches import context_check, prompt_ids
from data.everyday import questions
from editor.base import AnyEditor
from editor.cache import row_cache
from editor.capture import tokens_of
from editor.frozen import check_layers, frozen_inputs
from editor.learned import LearnedEditor
from editor.registry import editor_class
from editor.sites import check_sites, find_sites
from exports.ask import answer
from lifelong import history, saved_sessions
from lifelong.answers import CHUNK, chunks, grouped, probes
from lifelong.facts import Facts, edits_of, facts_of
from lifelong.ledger import Step
from lifelong.open_keys import settle_format
from lifelong.scores import Scores
from lifelong.session_state import SessionState
from linear import use_onednn
from model import load_model, load_tokenizer, model_skeleton, resolve_device
from report.metrics import Tally

log = logging.getLogger(__name__)


class Session(SessionState):
    """Lifelong editing: edit, score, undo, save, and go on another day."""

    @classmethod
    def load(
        cls,
        model: str | PreTrainedModel,
        *,
        editor: str = "margin",
        tokenizer: PreTrainedTokenizerBase | None = None,
        sites: str | Sequence[str] | None = None,
        format: Literal["auto", "raw", "qa", "chat"] = "auto",
        device: str = "auto",
        precision: str = "auto",
        seed: int = 42,
        undo_gib: float = 1.0,
        frozen_memory_gib: float = 2.0,
        **keys: object,
    ) -> Session:
        """A session on a model: a folder, a hub id, embedded:NAME, or a loaded model with its tokenizer.

        `sites` are names of modules, with ranges: "model.layers.{18-27}.mlp.down_proj"; the embedded model has a
        default. `format` is how prompts are shown to the model (docs/data.md; auto: chat where there is a chat
        template). `undo_gib` bounds what undo may keep in memory, `frozen_memory_gib` what the layers below the
        sites made of prompts (0: off). `keys` are the editor's, as on the command line without "editor.": lr=1e-3,
        alpha=10.

        Raises:
            ConfigError: a key that there is not, a value that cannot be, a model that cannot be opened.
        """
        given = {f"editor.{name}": value for name, value in keys.items()}
        given |= {"dataset.prompt_format": format, "model_device": device, "model.precision": precision, "seed": seed}
        given["model.frozen_memory_gib"] = frozen_memory_gib
        given |= {} if sites is None else {"model.edit_modules": [sites] if isinstance(sites, str) else list(sites)}
        loaded = None if isinstance(model, str) else model
        name = model if isinstance(model, str) else str(model.config.name_or_path or type(model).__name__)
        session = started(saved_sessions.config_of(name, editor, given), loaded, tokenizer)
        session.ledger.gib = undo_gib
        return session

    @classmethod
    def open(cls, folder: str | Path, *, device: str = "auto") -> Session:
        """Go on with what save wrote, or a run: the next step is bitwise what it would have been without the break.

        Of a run directory the newest state is taken; undo reaches the states that the run kept (checkpoint.keep).

        Raises:
            ConfigError: the folder is neither saved session nor run, or is not as it was saved.
        """
        folder = Path(folder).expanduser()
        if history.is_run(folder):
            session = started(history.config_of(folder, device), None, None)
            history.open_run(session, folder)
            return session
        saved = saved_sessions.read(folder, device)
        session = started(saved.cfg, None, None)
        saved.restore(session)
        return session

    def save(self, folder: str | Path) -> Path:
        """Save the model for from_pretrained(folder), beside it all that open needs; returns the absolute folder.

        Raises:
            ConfigError: the folder holds something other than a saved model.
        """
        return saved_sessions.write(self, Path(folder).expanduser().absolute())

    @overload
    def edit(self, facts: Facts, n_edits: None = None, *, warm_up: bool = False) -> Step: ...
    @overload
    def edit(self, facts: Facts, n_edits: int, *, warm_up: bool = False) -> list[Step]: ...
    def edit(self, facts: Facts, n_edits: int | None = None, *, warm_up: bool = False) -> Step | list[Step]:
        """Write facts into the weights: all in one step, or n_edits by step; the statistics go on.

        Raises:
            DataError: a fact without prompt or answer, or too long for the model; nothing was written.
            ConfigError: a learned editor that was not trained.
            NumericsError: something is not finite. Model and statistics are then as before the step, as after any
                other failure and after Ctrl-C.
        """
        if not self.trained:
            raise ConfigError(f"editor={self.cfg.editor.name} learns before it edits: call session.train(facts) first")
        edits = self._checked(facts)
        if n_edits is None:
            return self._write(edits, warm_up=warm_up)
        cuts = [edits[start : start + n_edits] for start in range(0, len(edits), n_edits)]
        return [self._write(cut, warm_up=warm_up) for cut in Progress(cuts, desc="edit", unit="step", disable=None)]

    def warm_up(self, facts: Facts, n_edits: int | None = None) -> None:
        """Fill the running statistics with facts, which are written too (docs/design.md, 2)."""
        self.edit(facts, n_edits or len(facts_of(facts)), warm_up=True)

    def read(self, facts: Facts) -> None:
        """Let editor=margin look, before its first step, at facts that are not edited: its text=records.

        Their prompts stand with their old answers, where these are known.

        Raises:
            ConfigError: the editor reads none, or there was a step already.
        """
        edits = self._checked([replace(edit, answer=edit.old_answer or edit.answer) for edit in edits_of(facts)])
        self.editor.read(self.batches(edits[at : at + CHUNK]) for at in range(0, len(edits), CHUNK))

    def train(self, facts: Facts, n_edits: int) -> pd.DataFrame:
        """Train a learned editor's networks on facts with rephrased and unrelated prompts; losses by step.

        Steps are not undone past a training.

        Raises:
            ConfigError: the editor learns nothing, or there are fewer facts than a step needs.
            DataError: a fact without the prompts that training reads.
        """
        if not isinstance(self.editor, LearnedEditor):
            raise ConfigError(f"editor={self.cfg.editor.name} learns nothing; edit right away")
        edits = self._checked(facts)
        for edit in edits:
            if edit.rephrase is None or edit.unrelated is None:
                raise DataError(f"{place(edit.row)}: training needs a rephrased and an unrelated prompt")
        cuts = [edits[start : start + n_edits] for start in range(0, len(edits) - n_edits + 1, n_edits)]
        if not cuts:
            raise ConfigError(f"train: {len(edits)} facts are fewer than one step of n_edits={n_edits}")
        lines: list[dict[str, float]] = []
        for _ in range(self.editor.cfg.n_epochs):
            steps = (self.batches(cut) for cut in Progress(cuts, desc="train", unit="step", disable=None))
            for report in self.editor.train_epoch(steps):
                lines.append({"gen_loss": report.gen_loss, "loc_loss": report.loc_loss})
        self.editor.last_shifts.clear()
        self.trained = True
        self.ledger.states.clear()
        return pd.DataFrame(lines)

    def undo(self, step: Step | int | None = None) -> None:
        """Go back to before a step (the last one unless said): weights, statistics and random state as they were.

        Raises:
            ConfigError: the step is not in the history, or undo_gib did not let the ledger reach so far.
        """
        self.load_tensors(self.ledger.go_back(self.ledger.number(step)))

    def history(self) -> pd.DataFrame:
        """The steps so far, a row each."""
        return self.ledger.table()

    def ask(self, prompt: str, max_new_tokens: int = 24) -> str:
        """The model's greedy answer to a prompt in the session's format; editor=in_context puts no fact before it."""
        asked = prompt_ids(self.tokenizer, [prompt], self.cfg.dataset.prompt_format)
        return answer(self.model, self.tokenizer, asked, max_new_tokens)[0].strip()

    def score(self, facts: Facts) -> Scores:
        """ES, GS, LS and their kin, teacher-forced: the mean of a fact's prompts, then of the facts that have any."""
        cfg, tally = self.cfg, Tally()
        for chunk in chunks(edits_of(facts), None, "score", self.model.device):
            of_each = [probes(e, mhop=cfg.dataset.eval_mhop, front=self.context(e.prompt)) for e in chunk]
            asked = [(n, *one) for n, of_edit in enumerate(of_each) for one in of_edit]
            found = self.answers([(prompt, answer) for *_, prompt, answer in asked])
            for (_, metric), each in grouped([one[:2] for one in asked], found).items():
                tally.add(metric, fmean(one.accuracy for one in each))
                tally.add(f"{metric}_all", fmean(one.all_right for one in each))
        return Scores(tally)

    def _checked(self, facts: Facts) -> list[Edit]:
        edits = edits_of(facts)
        if not edits:
            raise DataError("no fact was given")
        context = getattr(self.model.config, "max_position_embeddings", None)
        fits = context_check(self.tokenizer, context, self.cfg.dataset.prompt_format, self.editor.in_front)
        for error in filter(None, fits(edits)):
            raise error
        return edits

    def _write(self, edits: list[Edit], *, warm_up: bool) -> Step:
        before = self.ledger.copy(self.tensors())
        try:
            report = self.step(edits, warm_up=warm_up)
        except BaseException:
            self.load_tensors(before)
            raise
        return self.ledger.add(report, edits, before, warm_up=warm_up)


@contextmanager
def open_session(
    cfg: Config,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
    solve_device: torch.device,
    model: PreTrainedModel | None = None,
) -> Iterator[Session]:
    """Load the model that the config names, unless it is given, and put its editor to work.

    The editor's row cache ends with the block.

    Raises:
        ConfigError: the model cannot be opened, a site cannot be edited, layers cannot be run apart.
    """
    model = load_model(cfg.model, device) if model is None else use_onednn(model.eval().requires_grad_(False))
    inputs = frozen_inputs(model, cfg.model)
    if cfg.model.frozen_cache_dir and inputs is tokens_of:
        log.warning("model.frozen_cache_dir has no effect: no layer lies below the lowest site")
    sites = find_sites(model, cfg.model.edit_modules, masters=cfg.editor.float32_masters)
    with row_cache(cfg.editor.cache_dir, solve_device) as cache:
        kind = editor_class(cfg.editor.name)
        editor = kind(cfg.editor, model, sites, cache, solve_device=solve_device, seed=cfg.seed, inputs=inputs)
        if kind.asks(cfg.editor):
            editor.questions = prompt_ids(tokenizer, questions(), cfg.dataset.prompt_format)
        yield Session(cfg, model, tokenizer, editor)


def check_editor(cfg: Config) -> type[AnyEditor]:
    """The class of the editor that the config names.

    Raises:
        ConfigError: there is none, its keys are of another kind, or it cannot work with these settings.
    """
    kind = editor_class(cfg.editor.name)
    if not isinstance(cfg.editor, kind.config_class):
        raise ConfigError(
            f"editor.name={cfg.editor.name}: its keys are those of {kind.config_class.__name__}, which this "
            f"configuration does not have; choose it by editor={cfg.editor.name}"
        )
    kind.check(cfg.editor)
    return kind


def started(cfg: Config, model: PreTrainedModel | None, tokenizer: PreTrainedTokenizerBase | None) -> Session:
    """A session from Python, which ends when nobody holds it any more.

    Raises:
        ConfigError: as open_session; a value that cannot be; a loaded model without its tokenizer.
    """
    check_values(cfg)
    check_editor(cfg)
    if model is not None and tokenizer is None:
        raise ConfigError("tokenizer=None: a loaded model needs its tokenizer; give tokenizer=TOKENIZER")
    if model is None:
        skeleton = model_skeleton(cfg.model)
        check_sites(skeleton, cfg.model.edit_modules)
        check_layers(skeleton, cfg.model)
    tokenizer = load_tokenizer(cfg.model) if tokenizer is None else tokenizer
    settle_format(cfg, tokenizer)
    device = resolve_device("device", cfg.model_device) if model is None else model.device
    stack = ExitStack()
    session = stack.enter_context(open_session(cfg, tokenizer, device, device, model))
    weakref.finalize(session, stack.close)
    return session
