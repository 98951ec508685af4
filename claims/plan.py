"""Which runs there are: settings with the grid of their sweep, and the parts that compare them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ALPHAS = (0.1, 1.0, 10.0, 100.0, 1000.0)
POSITIONS = ("start", "q1", "middle", "q3", "end", "none")
LEARNED = ("malmen", "rledit", "mend")


@dataclass(frozen=True)
class Setting:
    """One way to edit. `grid` are the keys that its sweep tries; `tuned_as` takes another's choice instead.

    `headline` settings run on every seed; `data` is what they edit. `long_words` hold for the long run alone.
    """

    name: str
    label: str
    words: tuple[str, ...]
    grid: dict[str, tuple[float, ...]] = field(default_factory=dict)
    tuned_as: str | None = None
    headline: bool = False
    data: str = "facts"
    long_words: tuple[str, ...] = ()

    def points(self) -> list[tuple[str, ...]]:
        """The sweep's points as overrides."""
        keys = [[f"{key}={value:g}" for value in values] for key, values in self.grid.items()]
        return list(itertools.product(*keys)) if keys else []


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
    settings: tuple[str, ...] | None = None


FULL = Scale("full", "claims_base", 100, 100, 1000, 2500, 300, points=3, seeds=3)
# the settings that the claims hang on are measured more closely: all edits are scored
MORE = ("eval.edits=null", "eval.generate_sample=300", "eval.knowns=200", "downstream.number_of_tests=30")
CURVES = ("eval.every=5",)  # long runs whose curves a verdict reads
SHORT = Scale(  # three warm-up steps give the rows that whitening needs from the first edit on
    "short", "claims_base_short", 50, 6, 150, 100, 50, points=2, seeds=1,
    settings=(
        "stableedit", "raw", "diagonal", "warmup_middle", "warmup_none", "alpha_1000", "ultraedit", "rledit",
        "malmen", "mend", "plus", "floor_1e-3", "oas",
    ),
)  # fmt: skip

TRIED = (
    "plus", "plus_tuned", "key_ridge", "ultraedit_key_ridge", "floor_1e-3", "floor_1e-2", "oas", "keys", "per_site",
)  # fmt: skip
# parts in the order of the page, with the settings that each compares; the first is what the others are held against
PARTS: dict[str, tuple[str, ...]] = {
    "normalization": ("stableedit", "diagonal", "raw"),
    "cumulative": ("stableedit", "ultraedit"),
    "warmup": ("stableedit", *(f"warmup_{p}" for p in POSITIONS if p != "start")),
    "whitening": ("stableedit", "diagonal", *(f"alpha_{alpha:g}" for alpha in ALPHAS if alpha != 10)),
    "shifts": ("stableedit", "ultraedit"),
    "editors": ("stableedit", "ultraedit", "rledit", "malmen", "mend"),
    "beyond": ("stableedit", *TRIED),
    "precision": ("bf16", "bf16_masters", "stableedit"),
    "sites": ("late", "late_plus"),
    "questions": ("q", "q_plus"),
    "questions_step": ("q_step", "q_plus_step"),
}
# what the setting that others are held against stands for in a part
ROLES = {
    "normalization": "full whitening", "warmup": "warm-up: start", "whitening": "full whitening, alpha 10",
    "beyond": "published", "sites": "published", "questions": "published", "questions_step": "published",
    "precision": "bfloat16",
}  # fmt: skip
PLUS = ("editor=stableedit_plus",)
BF16 = ("model.precision=bfloat16",)
LATE = "model.edit_modules=[" + ",".join(f"model.layers.{layer}.mlp.down_proj" for layer in (26, 27, 28)) + "]"


def settings(scale: Scale) -> dict[str, Setting]:
    """Every setting by name; each sweep has `scale.points` points."""
    stable = diagonal = {"editor.lr": spread(scale, 1e-4, 3e-4, 1e-3)}
    base = ("editor=stableedit", "editor.alpha=10")
    more, curves = (MORE, CURVES) if scale.name == "full" else ((), ())
    found = [
        Setting("stableedit", "StableEdit", base, stable, headline=True, long_words=(*more, *curves)),
        Setting("ultraedit", "ULTRAEDIT", ("editor=ultraedit",), diagonal, headline=True, long_words=(*more, *curves)),
        Setting("floor_1e-3", "floor 1e-3 of the largest", (*base, *floor("1e-3")), stable),
        Setting(
            "raw", "no normalization", (*base, "editor.RunningMeanStd_mode=none"),
            {"editor.lr": spread(scale, 0.3, 1.0, 3.0)}, headline=True,
        ),
        Setting("diagonal", "diagonal", (*base, "editor.RunningMeanStd_mode=original"), diagonal, headline=True),
        *(learned(scale, name, label, lr) for name, label, lr in (
            ("rledit", "RLEdit", 1e-3), ("malmen", "MALMEN", 1e-3), ("mend", "MEND", 1e-5)
        )),
        *(
            Setting(f"warmup_{p}", f"warm-up: {p}", (*base, f"editor.preheat_mode={p}"), tuned_as="stableedit")
            for p in POSITIONS if p != "start"
        ),
        Setting("floor_1e-2", "floor 1e-2 of the largest", (*base, *floor("1e-2")), stable),
        *(
            Setting(f"alpha_{a:g}", f"alpha {a:g}", ("editor=stableedit", f"editor.alpha={a:g}"), stable)
            for a in ALPHAS if a != 10
        ),
        *_beyond(scale, base, stable, (more, curves)),
    ]  # fmt: skip
    return {setting.name: setting for setting in found if scale.settings is None or setting.name in scale.settings}


def _beyond(
    scale: Scale, base: tuple[str, ...], stable: dict[str, tuple[float, ...]], measured: tuple[tuple[str, ...], ...]
) -> list[Setting]:
    """What the paper has not, or not here: other data, other sites, other options."""
    more, curves = measured
    return [
        Setting("q", "StableEdit, questions", base, stable, data="questions"),
        Setting("q_plus", "stableedit_plus, questions", PLUS, tuned_as="q", data="questions"),
        Setting("q_step", "StableEdit, questions, step of facts", base, tuned_as="stableedit", data="questions"),
        Setting(
            "q_plus_step", "stableedit_plus, questions, step of facts", PLUS, tuned_as="stableedit", data="questions"
        ),
        Setting("late", "StableEdit, layers 26-28", (*base, LATE), stable),
        Setting("late_plus", "stableedit_plus, layers 26-28", (*PLUS, LATE), tuned_as="late"),
        Setting(
            "plus", "stableedit_plus", PLUS, tuned_as="stableedit", headline=True, long_words=(*more, *curves),
        ),
        Setting(
            "plus_tuned", "stableedit_plus, own step size", PLUS,
            {"editor.lr": spread(scale, 3e-4, 1e-3, 3e-3)}, long_words=more,
        ),
        Setting("key_ridge", "key ridge 0.99", (*base, "editor.key_ridge=0.99"), tuned_as="stableedit"),
        Setting(
            "ultraedit_key_ridge", "ULTRAEDIT, key ridge 0.99", ("editor=ultraedit", "editor.key_ridge=0.99"),
            tuned_as="ultraedit",
        ),
        Setting("oas", "OAS shrinkage", (*base, "editor.shrinkage=oas"), tuned_as="stableedit"),
        Setting("keys", "keys whitened too", (*base, "editor.whiten_keys=true"), tuned_as="stableedit"),
        Setting("per_site", "statistics per site", (*base, "editor.statistics_per=site"), tuned_as="stableedit"),
        Setting("bf16", "bfloat16", (*base, *BF16), tuned_as="stableedit"),
        Setting("bf16_masters", "bfloat16, float32 masters", (*base, *BF16, "editor.float32_masters=true"),
                tuned_as="stableedit"),
    ]  # fmt: skip


def floor(share: str) -> tuple[str, str]:
    """A whitening floor relative to the largest eigenvalue."""
    return f"editor.whitening_floor={share}", "editor.whitening_floor_mode=relative"


def label(part: str, setting: Setting) -> str:
    """How a part names a setting."""
    return ROLES.get(part, setting.label) if setting.name == PARTS[part][0] else setting.label


def learned(scale: Scale, name: str, label: str, lr: float) -> Setting:
    """A learned editor: the same number of points, over where its step sizes start."""
    words = (f"editor={name}", "editor.rank=256")
    grid = {"editor.lr": spread(scale, lr / 9, lr / 3, lr) if scale.name == "full" else (lr, 3 * lr)}
    return Setting(name, label, words, grid, headline=True, long_words=MORE if scale.name == "full" else ())


def spread(scale: Scale, *values: float) -> tuple[float, ...]:
    """The last `scale.points` of a grid: the fewer edits, the larger the best step size."""
    return values[-scale.points :]


@dataclass(frozen=True)
class Job:
    """One run of main.py: its folder below the output folder and its overrides."""

    setting: str
    stage: str
    name: str
    words: tuple[str, ...]

    @property
    def path(self) -> str:
        """Where it lies below the output folder."""
        return f"{self.stage}/{self.setting}/{self.name}"


def tuning(scale: Scale, setting: Setting, out: Path, extra: Sequence[str] = ()) -> list[Job]:
    """A setting's sweep: few steps on training records that neither warm-up nor training reads."""
    words = (
        *_common(scale, setting, out),
        f"dataset.valid_path={_records(setting, out, 'tune')}",
        f"num_seq={scale.tune_edits // scale.n_edits}",
        f"eval.edits={scale.tune_scored}",
        *("eval.every=0", "eval.generate=false", "eval.knowns=0", "eval.per_edit=false"),
        *("downstream_eval_steps=0", "checkpoint.every=0", "seed=0"),
    )
    return [
        Job(
            setting.name,
            "tune",
            "_".join(word.removeprefix("editor.").replace("=", "_") for word in point),
            (*words, *point, *extra),
        )
        for point in setting.points()
    ]


def final(
    scale: Scale, setting: Setting, chosen: Sequence[str], out: Path, seed: int, knowns: bool, extra: Sequence[str] = ()
) -> Job:
    """The long run of a setting with the chosen point, on the seed's edits in the seed's order."""
    known = (f"eval.knowns_path={out / 'knowns.json'}",) if knowns else ("eval.knowns=0",)
    words = (
        *_common(scale, setting, out),
        f"dataset.valid_path={_records(setting, out, f'eval_{seed}')}",
        *known,
        *(setting.long_words if seed == 0 else ()),
    )
    return Job(setting.name, "final", f"seed{seed}", (*words, f"seed={seed}", *chosen, *extra))


def _common(scale: Scale, setting: Setting, out: Path) -> tuple[str, ...]:
    dataset = () if setting.data == "facts" else ("dataset=zsre",)
    files = (f"dataset.train_path={_records(setting, out, 'train')}", f"model.frozen_cache_dir={out / 'frozen'}")
    return (f"experiment={scale.experiment}", *dataset, *setting.words, *files)


def _records(setting: Setting, out: Path, name: str) -> Path:
    return out / "data" / (f"{name}.jsonl" if setting.data == "facts" else f"zsre_{name}.json")


def chosen_settings(scale: Scale, parts: Sequence[str]) -> Iterator[Setting]:
    """The settings that some parts compare, each once, a setting after the one whose choice it takes."""
    there = settings(scale)
    names = dict.fromkeys(name for part in parts for name in PARTS[part] if name in there)
    return (there[name] for name in names)
