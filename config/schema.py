"""The typed schema of every key. Hydra checks names and types against it before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from config.choices import (
    AUTO,
    COUNT_OR_AUTO,
    BadRow,
    Best,
    DownstreamBackend,
    Export,
    Locality,
    Precision,
    Probe,
    PromptFormat,
    WandbMode,
    WarmUp,
    above_zero,
    at_least_zero,
)
from config.editors import KINDS, AnyEditorConfig
from config.editors import EditorConfig as EditorConfig  # editors outside the project start from it
from config.sites import expand_sites


@dataclass
class FieldsConfig:
    """Which field of a record holds what; null: never read.

    A field's name, or a path into nested records (docs/data.md); of several between bars the first that is there.
    Prompts but the edited one may be lists.
    """

    prompt: str = "prompt"  # the prompt to edit
    answer: str = "answer"  # its new answer
    rephrase: str | None = "rephrase"  # the prompt asked differently (GS)
    unrelated: str | None = "unrelated"  # a prompt whose answer must stay (LS)
    unrelated_answer: str | None = "unrelated_answer"  # its answer; a record has both or neither
    persona: str | None = None  # the prompt in a persona's words (person_score)
    mhop: str | None = None  # a question one hop further (mhop_score)
    mhop_answer: str | None = None  # its answer; a record has both or neither
    subject: str | None = None  # what the fact is about, as it stands in the prompt
    old_answer: str | None = None  # what was said before the edit
    aliases: str | None = None  # other words for the new answer
    neighbour: str | None = None  # a near neighbour of the fact, whose answer must stay, beside unrelated
    neighbour_answer: str | None = None  # its answer; a record has both or neither
    attribute: str | None = None  # a prompt about another subject, which the new answer answers
    generation: str | None = None  # how a text about the subject begins


@dataclass
class DatasetConfig:
    """Which records are edited, how a record is read, and how they are cut into steps."""

    name: str = MISSING  # what reports and folders call it
    n_edits: int = above_zero(100)  # edits written by one step
    batch_size: int = above_zero(10)  # micro-batch: edits that share a forward and backward pass
    train_path: str | None = None  # training records; in valid_path those behind the edits; null: warm_up_data
    valid_path: str = ""  # records that are edited and scored: .json, .jsonl or .csv, also .xz and .gz
    eval_mhop: bool = True  # score the two-hop questions too (mhop_score)
    on_bad_row: BadRow = BadRow.error  # error | skip (skipped rows are counted and listed in results.json)
    cache_dir: str = "~/.cache/stableedit/data"  # what is known of large files: their hash, that their rows are good
    limit: int | None = above_zero(None)  # records of valid_path that are edited at most; null: as num_seq says
    prompt_format: PromptFormat = PromptFormat.raw  # raw as they stand, qa Question: ..., chat; auto: chat or raw
    fields: FieldsConfig = field(default_factory=FieldsConfig)  # which field of a record holds what
    required: list[str] = field(default_factory=list)  # fields that no record may lack, beside prompt and answer
    exact: bool = False  # texts as they stand; false: white space around them is dropped, answers may be numbers
    draw_rephrase: bool = False  # of a list of rephrased prompts seed draws one for each record; false: all are asked
    unrelated_suffix: str = ""  # what is put behind every unrelated prompt
    locality: Locality = Locality.random  # random | neighbour: the unrelated prompts ask anything, or are near ones
    subject_mark: str | None = None  # what stands in a prompt in the place of the subject; null: nothing does
    each: str | None = None  # a list in a record, of which every entry is an edit of its own; null: a record is one
    missing_mhop: str | None = None  # asked, and its own answer, where a record lacks a second hop; null: nothing is
    how_to_get: str = ""  # the command that brings the files, for the message about one that is not there
    warm_up: WarmUp = WarmUp.num_seq_zsre  # the key that says how many warm-up steps run
    warm_up_data: str = "facts"  # the data set whose training records warm up where train_path is null


@dataclass
class ModelConfig:
    """Which model is loaded and which of its modules are edited."""

    name: str = MISSING
    name_or_path: str = MISSING
    edit_modules: list[str] = MISSING
    half: bool = False
    precision: Precision = Precision.auto
    embedded_cache_dir: str = "~/.cache/stableedit"
    download: bool = False
    device_map: str | None = None
    frozen_memory_gib: float = at_least_zero(2.0)
    frozen_cache_dir: str | None = None
    frozen_cache_gib: float = above_zero(20.0)

    def __post_init__(self) -> None:
        if self.edit_modules != MISSING:
            self.edit_modules = expand_sites(self.edit_modules)


@dataclass
class EvalConfig:
    """How ES, GS and LS are scored, and what else is measured while editing and at the end."""

    before: bool = True
    edits: int | None = above_zero(None)
    tokens_per_batch: Any = field(default=AUTO, metadata=COUNT_OR_AUTO)
    every: int = at_least_zero(0)
    sample: int = at_least_zero(100)
    knowns: int = at_least_zero(100)
    knowns_path: str = "data/raw/known_1000.json"
    generate: bool = False
    generate_sample: int | None = at_least_zero(200)
    max_new_tokens: int = above_zero(24)
    judge_url: str | None = None
    judge_model: str | None = None
    probes: list[Probe] = field(default_factory=list)
    best: Best = Best.gain
    examples: int = at_least_zero(5)
    per_edit: bool = True
    cache_dir: str | None = "~/.cache/stableedit/eval"


@dataclass
class DownstreamConfig:
    """Evaluation of abilities beside the edits (docs/design.md, 6)."""

    tasks: list[str] = field(default_factory=lambda: ["sst", "mrpc", "cola", "rte", "mmlu", "nli"])
    number_of_tests: int = above_zero(100)
    few_shots: int = at_least_zero(0)
    batch_size: Any = field(default=AUTO, metadata=COUNT_OR_AUTO)
    data_dir: str | None = None
    perplexity_text: str | None = None
    backend: DownstreamBackend = DownstreamBackend.builtin


@dataclass
class CheckpointConfig:
    """How often the state of a run is saved, and how many states stay: for resume, continue_from and undo."""

    every: int = at_least_zero(50)
    keep: int = above_zero(2)


@dataclass
class WandbConfig:
    """Experiment tracking beside results.json and metrics.jsonl."""

    mode: WandbMode = WandbMode.offline
    project: str = "lifelong-editing"
    name: str | None = None


@dataclass
class Config:
    """The whole run. See config/config.yaml for what each key does."""

    dataset: DatasetConfig = MISSING
    model: ModelConfig = MISSING
    editor: AnyEditorConfig = MISSING
    eval: EvalConfig = field(default_factory=EvalConfig)
    downstream: DownstreamConfig = field(default_factory=DownstreamConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)
    num_seq: int | None = above_zero(200)
    num_seq_zsre: int = at_least_zero(20)
    num_seq_wikibigedit: int = at_least_zero(20)
    model_device: str = "auto"
    editor_device: str = "auto"
    downstream_eval_steps: int = at_least_zero(0)
    model_cache: bool = False
    model_cache_dir: str | None = None
    export: Export = Export.full
    report: bool = True
    inspect: bool = False
    tune: bool = False
    tune_trials: int = above_zero(8)
    tune_edits: int = above_zero(100)
    tune_lr: list[float] | None = None
    tune_sites: list[str] = field(default_factory=list)
    verbose: bool = False
    seed: int = at_least_zero(42)
    resume: str | None = None
    score: str | None = None
    score_base: str | None = None
    continue_from: str | None = None
    undo: str | None = None
    steps: int = above_zero(1)

    @property
    def edit_steps(self) -> int:
        """The run's steps: num_seq, set once the records are known where it was null (lifelong/open_keys.py)."""
        assert self.num_seq is not None
        return self.num_seq


def register(kinds: Mapping[str, type[AnyEditorConfig]] = KINDS) -> None:
    """Make the schema known to Hydra: base_config, and schema/KIND for the editors' yaml files to start from."""
    store = ConfigStore.instance().store
    store(name="base_config", node=Config)
    for kind, node in kinds.items():
        store(group="schema", name=kind, node=node)
