"""Several runs side by side: what varies between them, which is best, and the figures of them all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.patches import Rectangle

from files import flatten
from report import style
from report.load import Run, curves
from report.metrics import METRICS, RULES, Rule
from report.style import WORDS, Plate
from report.terminal import aligned, cell

QUIET = ["wandb.name", "model_cache_dir", "resume"]  # keys that name things and change no number
NAMED = {"dataset": "dataset.name", "model": "model.name", "editor": "editor.name"}  # a group's word, as it is resolved
MAIN = (*NAMED.values(), "editor.lr", "editor.alpha", "editor.whitening_floor")
DOWNSTREAM = "downstream average"
MOST = 24  # runs beyond which curves are not told apart
Table = tuple[Sequence[str], Sequence[Sequence[str]]]  # head and rows as text


@dataclass(frozen=True)
class Comparison:
    """Runs, and a line each: their values of the keys that vary; the rule's scores, last the merit, NaN if unfinished.

    The values of a key are categories in order. The merit is `relative` where something was measured before editing;
    a run has none that lacks a score which another has. `best` is the place of the finished run with the highest merit,
    the first of equals; None where there is no choice.
    """

    runs: list[Run]
    keys: list[str]
    settings: pd.DataFrame
    scores: pd.DataFrame
    rule: Rule
    merit_name: str
    relative: bool
    best: int | None
    failed: list[Run]


def compare(runs: Sequence[Run]) -> Comparison:
    """Find what varies (in the overrides of a sweep, else in the configurations) and what is best (eval.best)."""
    asked = {(run.config.get("eval") or {}).get("best") for run in runs if run.finished}
    by = "published" if asked == {"published"} else "gain"
    rule = RULES[by]
    scores = pd.DataFrame([run.scores if run.finished else {} for run in runs], columns=rule.shown, dtype=float)
    relative = any(run.finished and run.before.keys() & set(rule.shown) for run in runs)
    name = f"mean {'change' if relative else 'score'}" if by == "published" else "objective"
    there = scores.notna().any()
    alike = scores.loc[:, there].notna().all(axis="columns")
    scores[name] = pd.Series([run.merit(by) for run in runs], dtype=float).where(alike)
    best = int(scores[name].argmax()) if scores[name].count() > 1 else None
    settings, failed = _settings(runs), [run for run in runs if not run.finished]
    return Comparison(list(runs), [*map(str, settings)], settings, scores, rule, name, relative, best, failed)


def _settings(runs: Sequence[Run]) -> pd.DataFrame:
    """Per run its values of the keys that vary, as categories: numbers by size, then names as they came.

    The keys of a sweep's words and those of MAIN, as resolved; where none of them varies all resolved keys that do.
    """
    words = [[word.lstrip("+").partition("=") for word in run.overrides] for run in runs]
    given = [{NAMED.get(key, key): value for key, _, value in found} for found in words]
    flat = [flatten(run.config).items() for run in runs]
    resolved = [{k: shown(v) for k, v in found if v is not None or k not in MAIN} for found in flat]
    whole = pd.DataFrame(resolved, dtype=object)
    known = whole[[bool(run.config) for run in runs]].fillna("null").nunique() > 1
    swept = pd.DataFrame(given, dtype=object)
    swept = swept.loc[:, swept.nunique(dropna=False) > 1] if all(given) else swept.iloc[:, :0]
    keys = [*swept, *(key for key in MAIN if known.get(key, False) and key not in swept)]
    keys = [key for key in keys if key not in QUIET] or [*known.index[known].difference(QUIET, sort=False)]
    table = pd.DataFrame(index=range(len(runs)))
    for key in keys:
        table[key] = whole.get(key, pd.Series(index=table.index, dtype=object))
        table[key] = (table[key].fillna(swept[key]) if key in swept else table[key]).fillna("")
    table = table.loc[:, table.nunique() > 1]
    for key in table:
        values = table[key].drop_duplicates()
        order = pd.to_numeric(values, errors="coerce").argsort(kind="stable")
        table[key] = pd.Categorical(table[key], values.iloc[order])
    return table


def shown(value: Any) -> str:
    """A configuration value as a person writes it."""
    if isinstance(value, list):
        return "[" + ", ".join(map(shown, value)) + "]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def comparison_table(found: Comparison) -> Table:
    """Several runs side by side: name, varied keys, metrics, merit, state."""
    metrics = list(dict.fromkeys(name for run in found.runs if run.results for name in run.scores))
    head, rows = _side_by_side(found, metrics, "+.4f" if found.relative else ".4f", "–")
    return ("run", *head), [(row[0] + " (best)" * (at == found.best), *row[1:]) for at, row in enumerate(rows)]


def sweep_text(runs: Sequence[Run]) -> str:
    """A table for the terminal; the best job is marked with *, and what stopped the others is listed below."""
    found = compare(runs)
    head, rows = _side_by_side(found, found.rule.shown, ".4f", "-")
    marked = [("*" * (at == found.best), *row) for at, row in enumerate(rows)]
    lines = [aligned(("", "job", *head), marked, left=(*range(len(found.keys) + 2), len(head) + 1))]
    if found.best is not None:
        lines.append(f"* best by {best_words(found)}")
    return "\n".join(lines + [f"{run.name}: {run.state}: {run.error}" for run in found.failed])


def best_words(found: Comparison) -> str:
    """By what the best run is the best."""
    if found.merit_name == "objective":
        return f"objective: {found.rule.words}"
    return f"{found.merit_name} of ES, GS and LS" + " since before editing" * found.relative


def _side_by_side(found: Comparison, metrics: Sequence[str], form: str, missing: str) -> Table:
    """Per run its name, its values of the varied keys, the metrics, the merit in `form`, and its state."""
    rows = []
    merits = found.scores[found.merit_name]
    for run, setting, merit in zip(found.runs, found.settings.values, merits, strict=True):
        cells = [cell(run.scores.get(name), missing=missing) for name in metrics]
        rows.append((run.name, *setting, *cells, cell(None if pd.isna(merit) else merit, form, missing), run.state))
    return (*found.keys, *metrics, found.merit_name, "state"), rows


def comparison_figures(found: Comparison) -> Iterator[Plate | None]:
    """Heat maps or a line over the swept keys, then curves of every run; None for what cannot be drawn."""
    if len(found.keys) == 2 and (found.settings.nunique() > 1).all() and not found.settings.duplicated().any():
        for metric in found.scores.columns[found.scores.notna().any()]:
            yield _heat_map(found, metric)
    elif len(found.keys) == 1:
        yield _over_one_key(found)
    if len(found.runs) <= MOST:
        yield from (_curves(found, name) for name in ("ES", "GS", "LS", "LS_agreement", "KS", DOWNSTREAM))


def _heat_map(found: Comparison, metric: str) -> Plate:
    """A score over the two swept keys; the best run is framed, failed ones are named."""
    values = found.scores[metric]
    table = values.set_axis(pd.MultiIndex.from_frame(found.settings)).unstack()
    ys, xs = (found.settings[key].cat.codes for key in found.keys)
    figure, axes = style.heat_map(table, found.keys[1], found.keys[0])
    hatched: dict[str, Any] = {"hatch": "///", "facecolor": "#eeeeee", "edgecolor": style.FAINT, "linewidth": 0}
    for run, y, x, missing in zip(found.runs, ys, xs, values.isna(), strict=True):
        if missing:
            axes.text(x, y, f"{run.name}\n{run.state}", ha="center", va="center", fontsize=8, color="#a11")
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, zorder=1.5, **hatched))
    words = f"{metric} after the last edit"
    if metric == found.merit_name:
        words = best_words(found)[0].upper() + best_words(found)[1:]
    if found.best is not None:
        corner = xs[found.best] - 0.46, ys[found.best] - 0.46
        axes.add_patch(Rectangle(corner, 0.92, 0.92, fill=False, edgecolor="#D55E00", linewidth=3))
        words += "; framed: the best job"
    words += ", hatched: jobs without a result." if values.isna().any() else "."
    title = f"{metric[0].upper()}{metric[1:]} over {' and '.join(found.keys)}"
    return Plate(f"sweep_{metric.replace(' ', '_')}", title, words, figure)


def _over_one_key(found: Comparison) -> Plate | None:
    """The rule's scores over the one swept key; evenly spaced, for values may be names or span decades."""
    (key,) = found.keys
    values = found.settings[key].cat
    table = found.scores[list(found.rule.shown)].set_axis(values.codes).sort_index().dropna(axis="columns", how="all")
    shares = {str(name): curve.dropna() for name, curve in table.items()}
    figure = style.curve_figure(shares, style.SHARE, key, share=True)
    if figure is None:
        return None
    (axes,) = figure.axes
    names = [name if len(name) < 18 else name[:16] + "…" for name in values.categories]
    axes.set_xticks(range(len(names)), names)
    for index, (run, place) in enumerate(zip(found.runs, values.codes, strict=True)):
        if index == found.best:
            axes.axvspan(place - 0.15, place + 0.15, color="#f5e2d6", zorder=0)
        if not run.finished:
            axes.text(place, 0.5, f"{run.name}: {run.state}", rotation=90, ha="center", va="center", color="#a11")
    words = WORDS["sweep"] + " Shaded: the best." * (found.best is not None)
    return Plate("sweep", f"{', '.join(found.rule.shown)} against {key}", words, figure)


def _curves(found: Comparison, name: str) -> Plate | None:
    """One score of every run against edits; without samples on the way, the end points alone."""
    drawn, dotted = {}, 0
    for index, run in enumerate(found.runs):
        measured = run.downstream() if name == DOWNSTREAM else run.over_time("sample", [name])
        curve = measured.get(name.removeprefix("downstream "))
        if curve is None:
            curve = curves(run.events["evaluate"], [name], "edits").get(name, pd.Series(dtype=float))
            first = METRICS[name].unedited if name in METRICS else None
            curve = curve if first is None else curve.fillna(first)  # it is not measured before any edit
            dotted += len(curve) > 1
        setting = ", ".join(filter(None, found.settings.iloc[index, :2]))
        label = f"{run.name} ({setting})" if setting and len(run.name) + len(setting) < 40 else run.name
        # a run that stopped early may have its first point alone
        drawn[label] = curve if len(curve) > 1 else curve.iloc[:0]
    all_dotted = dotted == sum(not curve.empty for curve in drawn.values())
    words = "downstream" if name == DOWNSTREAM else "ends" if all_dotted else "mixed" if dotted else "sampled"
    figure = style.curve_figure(drawn, name, share=True)
    if figure is None:
        return None
    figure.set_figheight(3.5 + 0.12 * min(len(drawn), 8))
    return Plate(f"runs_{name.replace(' ', '_')}", f"{name} against edits", WORDS["runs"][words], figure)
