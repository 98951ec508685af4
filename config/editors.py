"""The editors' configurations, a class for each kind; their defaults are in config/editor/."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from config.choices import (
    AUTO,
    COUNT_OR_AUTO,
    FloorMode,
    MetricText,
    Over,
    PreheatMode,
    StatisticsMode,
    TokenRows,
    WhiteningSolver,
    above_zero,
    at_least_zero,
)


@dataclass
class AnyEditorConfig:
    """What every editor has: how much is handled at once, and where; what shapes the edits stands in classes below."""

    name: str = MISSING
    batch_size: int = above_zero(128)
    tokens_per_pass: Any = field(default=AUTO, metadata=COUNT_OR_AUTO)
    cache_dir: str | None = None
    float32_masters: bool = False


@dataclass
class EditorConfig(AnyEditorConfig):
    """Editors that capture rows; keys that only some of them have stand in classes below this one."""

    lr: float = above_zero(1e-6)
    token: TokenRows = TokenRows.ans
    RunningMeanStd_mode: StatisticsMode = StatisticsMode.original
    preheat_mode: PreheatMode = PreheatMode.none
    save_checkpoint: bool = False
    load_checkpoint: str | None = None


@dataclass
class RidgeConfig(EditorConfig):
    """Editors that solve a ridge-regularized system for the shift, with nothing learned beforehand."""

    alpha: float = above_zero(1.0)
    whitening_floor: float = above_zero(1e-6)
    whitening_floor_mode: FloorMode = FloorMode.absolute
    whitening_solver: WhiteningSolver = WhiteningSolver.auto


@dataclass
class LearnedConfig(EditorConfig):
    """Editors that train a network before they edit."""

    rank: int = above_zero(1024)
    n_blocks: int = above_zero(4)
    meta_lr: float = above_zero(1e-5)
    loc_coef: float = at_least_zero(0.6)
    max_grad_norm: float = above_zero(1.0)
    n_epochs: int = above_zero(1)
    reg_coef: float = at_least_zero(1e-4)


@dataclass
class RLEditConfig(LearnedConfig):
    """Training that looks back on earlier steps."""

    time_decay: float = above_zero(0.95)
    back_depth: int = above_zero(10)


@dataclass
class FinetuneConfig(AnyEditorConfig):
    """Fine-tuning of the sites' weights by Adam (editor/finetune.py)."""

    lr: float = above_zero(5e-4)
    batch: int = above_zero(100)
    epochs: int = above_zero(25)
    floor: float = at_least_zero(0.01)
    over: Over = Over.step


@dataclass
class MarginConfig(EditorConfig):
    """The editor that asks for margins instead of taking steps: it has no step size."""

    lr: float | None = None  # type: ignore[assignment]   # fixed: there is no step size
    margin: float = above_zero(0.3)
    passes: int = above_zero(2)
    text: MetricText = MetricText.own
    text_weight: float = above_zero(1000.0)
    damping: float = above_zero(1e-2)


@dataclass
class RecursiveRidgeConfig(EditorConfig):
    """Editors whose least-squares system holds the keys of all steps so far."""

    alpha: float = above_zero(1.0)


@dataclass
class AlphaEditConfig(RecursiveRidgeConfig):
    """Such a system in directions that text does not use."""

    threshold: float = above_zero(0.3)


@dataclass
class MemitConfig(EditorConfig):
    """Least squares with the keys of text."""

    text_weight: float = above_zero(150.0)


KINDS: dict[str, type[AnyEditorConfig]] = {
    "any": AnyEditorConfig, "ridge": RidgeConfig, "learned": LearnedConfig, "rledit": RLEditConfig,
    "finetune": FinetuneConfig, "margin": MarginConfig,
    "recursive_ridge": RecursiveRidgeConfig, "alphaedit": AlphaEditConfig, "memit": MemitConfig,
}  # fmt: skip
"""The editors' configurations by the name under which a yaml file starts from them: /schema/KIND@_here_."""
