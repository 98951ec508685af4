"""Which runs there are: the settings and the parts of plan.yaml at a scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf


@dataclass(frozen=True)
class Setting:
    """One way to edit, as plan.yaml says; `lr` are the points of its sweep, none where it takes another's choice."""

    name: str
    label: str
    words: str
    lr: tuple[float, ...] = ()
    tuned_as: Setting | None = None
    headline: bool = False
    long: str = ""


@dataclass(frozen=True)
class Part:
    """Settings that are compared, with the words of the page; `compared` parts go metric by metric.

    A part whose figure shows curves has a panel for each number (with its label) of what is `measured` when.
    """

    title: str
    settings: list[str]
    caption: str
    rule: str
    base: str = ""
    compared: bool = False
    note: str = ""
    measured: str = ""
    panels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Scale:
    """How much is run. `experiment` holds a run's size; `warm_up` and `tune_edits` count records held out from it."""

    name: str
    experiment: str
    n_edits: int
    num_seq: int
    warm_up: int
    tune_edits: int
    tune_scored: int
    points: int
    seeds: int
    settings: tuple[str, ...] = ()


PLAN: Any = OmegaConf.to_container(OmegaConf.load(Path(__file__).with_name("plan.yaml")), resolve=True)
PARTS = {name: Part(**part) for name, part in PLAN["parts"].items()}
FULL, SHORT = (Scale(name, **told) for name, told in PLAN["scales"].items())


def settings(scale: Scale) -> dict[str, Setting]:
    """Every setting by name; each sweep has `scale.points` points: the fewer edits, the larger the best step size."""
    full, found = scale.name == FULL.name, dict[str, Setting]()
    for name in scale.settings or PLAN["settings"]:
        told = {"lr": (), "tuned_as": None} | PLAN["settings"][name] | ({} if full else {"long": ""})
        told["lr"] = tuple(told["lr"][: scale.points] if full else told["lr"][-scale.points :])
        found[name] = Setting(name, **told | {"tuned_as": found.get(told["tuned_as"])})
    return found


def chosen_settings(scale: Scale, parts: Sequence[str]) -> list[Setting]:
    """The settings that some parts compare, each once, a setting after the one whose choice it takes."""
    there = settings(scale)
    return [there[name] for name in dict.fromkeys(n for part in parts for n in PARTS[part].settings) if name in there]


def label(part: str, setting: Setting) -> str:
    """How a part names a setting."""
    return PARTS[part].base or setting.label if setting.name == PARTS[part].settings[0] else setting.label


class Job(NamedTuple):
    """One run of main.py: its folder STAGE/SETTING/NAME below the output folder, and its overrides."""

    path: str
    words: tuple[str, ...]
