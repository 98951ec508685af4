"""From a config to the records of a run and the order of its steps; everything is checked before a model loads."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import cast

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from config.check import ConfigError
from config.choices import PreheatMode
from config.compose import dataset_config
from config.editors import EditorConfig, LearnedConfig
from config.schema import Config, DatasetConfig, EvalConfig
from data.base import DataError, Edit
from data.batches import context_check, steps
from data.fields import KNOWNS, read_known
from data.source import Fits, RecordFile, Source, locate, rows_edited, with_all_prompts
from editor.base import AnyEditor
from editor.frozen import check_layers
from editor.registry import editor_class
from editor.sites import check_sites
from lifelong.open_keys import settle_format, settle_steps
from lifelong.scorer import drawn
from model import load_tokenizer, model_skeleton

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Data:
    """The records of a run, validated: what is edited, and what warms up or trains."""

    edits: RecordFile
    training: RecordFile | None
    knowns: Sequence[tuple[str, str]] = ()

    @property
    def skipped(self) -> dict[str, dict[int, str]]:
        """Bad rows that are passed over, by file and position."""
        files = [self.edits, self.training]
        return {str(file.path): file.bad for file in files if file is not None and file.bad}


def preheat(cfg: Config) -> PreheatMode:
    """Where the warm-up runs: nowhere for an editor without statistics to fill."""
    return cfg.editor.preheat_mode if isinstance(cfg.editor, EditorConfig) else PreheatMode.none


def warm_up_steps(cfg: Config) -> int:
    """How many warm-up steps run: 0 with preheat_mode none, as where an editor trains, or goes on, instead."""
    if preheat(cfg) is PreheatMode.none or cfg.continue_from:
        return 0
    return getattr(cfg, cfg.dataset.warm_up.value)


def schedule(cfg: Config, data: Data) -> Iterator[tuple[bool, list[Edit]]]:
    """Every step of the run in order, as (warm-up?, its edits); docs/design.md, 2.7."""
    mode, last = preheat(cfg), cfg.edit_steps - 1
    quarters = {PreheatMode.start: 0, PreheatMode.q1: 1, PreheatMode.middle: 2, PreheatMode.q3: 3}
    position = quarters[mode] * cfg.edit_steps // 4 if mode in quarters else last
    for index, edits in enumerate(steps(iter(data.edits), cfg.dataset.n_edits, rest=True)):
        if index == position and warm_up_steps(cfg):  # none with preheat_mode none
            assert data.training is not None
            for training in steps(iter(data.training), cfg.dataset.n_edits):
                yield True, training
        yield False, edits


def open_data(
    cfg: Config, skeleton: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, training: bool = True
) -> Data:
    """Validate and open the records that the run will read; without `training` for no editor at all.

    Raises:
        DataError: a file that is missing, broken or too short; a bad row; a training record
            without the prompts that a learned editor trains on.
    """
    context = getattr(skeleton.config, "max_position_embeddings", None)
    prompt_format = cfg.dataset.prompt_format
    in_front = (editor_class(cfg.editor.name) if training else AnyEditor).in_front
    fits = context_check(tokenizer, context, prompt_format, in_front)
    fits_key = f"{cfg.model.name_or_path} {len(tokenizer)} {context} {cfg.dataset.eval_mhop} {prompt_format.value}"
    fits_key += f" {cfg.editor.name}" if in_front("", "") else ""
    with _named("dataset.valid_path"):
        edits = Source(cfg.dataset, cfg.seed, fits, fits_key).edits(cfg.num_seq)
    settle_steps(cfg, len(edits))
    with _named("dataset.train_path"):
        learned_from = _open_training(cfg, fits, fits_key, edits) if training else None
    with _named("eval.knowns_path"):
        knowns = known_facts(cfg.eval, cfg.seed, fits)
    return Data(edits, learned_from, knowns)


def _open_training(cfg: Config, fits: Fits, fits_key: str, edits: RecordFile) -> RecordFile | None:
    """What a learned editor trains on, another one reads, or the warm-up writes; None where the run needs none.

    In the file that is edited they are the records behind those that are.
    """
    if editor_class(cfg.editor.name).trains:
        assert isinstance(cfg.editor, LearnedConfig)
        if cfg.editor.load_checkpoint or cfg.continue_from:
            return None
        trainable = with_all_prompts(fits, cfg.editor.name)
        source = Source(cfg.dataset, cfg.seed, trainable, f"{fits_key} {cfg.editor.name}")
        return source.training(cfg.edit_steps, rows_edited(edits, str(cfg.dataset.train_path)))
    if read := 0 if cfg.continue_from else editor_class(cfg.editor.name).reads(cfg.editor):
        source = Source(replace(cfg.dataset, n_edits=1), cfg.seed, fits, fits_key)
        return source.training(read, rows_edited(edits, str(cfg.dataset.train_path)))
    warm_up = warm_up_steps(cfg)
    if not warm_up:
        return None
    dataset, key = cfg.dataset, cfg.dataset.warm_up.value
    if dataset.train_path is None:
        log.warning(
            "dataset.train_path=null: no training split: warm-up on %s; its %d counterfactual edits stay in the "
            "weights (%s=0 for no warm-up)", dataset.warm_up_data, warm_up * dataset.n_edits, key,
        )  # fmt: skip
        dataset = warm_up_data(dataset)
    assert dataset.train_path is not None
    first = rows_edited(edits, dataset.train_path)
    return Source(dataset, cfg.seed, fits, fits_key).records(dataset.train_path, warm_up, key, first)


def warm_up_data(dataset: DatasetConfig) -> DatasetConfig:
    """The data set whose training records stand in for those that `dataset` lacks, cut as `dataset` is."""
    try:
        other = dataset_config(dataset.warm_up_data)
    except ConfigError as error:
        raise ConfigError(f"dataset.warm_up_data={dataset.warm_up_data}: {error}") from error
    return replace(other, n_edits=dataset.n_edits, cache_dir=dataset.cache_dir)


def known_facts(cfg: EvalConfig, seed: int, fits: Fits) -> list[tuple[str, str]]:
    """Prompt and answer of a sample of known facts; none where the default file is not there.

    Raises:
        ConfigError: a file that was asked for by name is not there.
        DataError: the file is broken, or the model cannot use one of them.
    """
    path = locate(cfg.knowns_path)
    if not cfg.knowns or not path.is_file():
        if cfg.knowns and cfg.knowns_path != EvalConfig.knowns_path:
            raise ConfigError(
                f"eval.knowns_path={cfg.knowns_path}: no such file; get it: {KNOWNS.how_to_get}, or eval.knowns=0"
            )
        return []
    facts = list(RecordFile(path, read_known, seed))
    picked = [facts[i] for i in drawn(len(facts), cfg.knowns, seed)]
    for error in filter(None, fits(picked)):
        raise DataError(f"{path}: {error}")
    return [(fact.prompt, fact.answer.strip()) for fact in picked]


@contextmanager
def _named(key: str) -> Iterator[None]:
    """Say in a data error which key named the file."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{key}: {error}") from error


def prepare(cfg: Config) -> tuple[Data, PreTrainedTokenizerBase]:
    """Check sites and records against the model's modules and tokenizer, without its weights; settle open keys.

    Raises:
        ConfigError, DataError: what is wrong, and what would be right.
    """
    skeleton = model_skeleton(cfg.model)
    check_sites(skeleton, cfg.model.edit_modules)
    check_layers(skeleton, cfg.model)
    tokenizer = checked_tokenizer(cfg, skeleton)
    return open_data(cfg, skeleton, tokenizer), tokenizer


def checked_tokenizer(cfg: Config, skeleton: PreTrainedModel) -> PreTrainedTokenizerBase:
    """The model's tokenizer.

    Raises:
        ConfigError: it is another model's, or cannot show prompts in the format asked for.
    """
    tokenizer = load_tokenizer(cfg.model)
    _check_vocabulary(cfg.model.name_or_path, skeleton, tokenizer)
    settle_format(cfg, tokenizer)
    return tokenizer


def _check_vocabulary(source: str, skeleton: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer of another model; a special token that the model lacks stands in no text."""
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    last = max({*tokenizer.get_vocab().values()} - special, default=0)
    rows = cast(Tensor, skeleton.get_input_embeddings().weight).shape[0]
    if last >= rows:
        raise ConfigError(
            f"model.name_or_path={source}: its tokenizer has a token {last}, its model {rows} tokens; "
            "name a folder whose tokenizer and weights belong together"
        )
