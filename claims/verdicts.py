"""Whether each claim held: the rules of plan.yaml, applied to what the runs left."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd

from .evidence import MAIN, Estimate, Evidence, difference, mean, paired, slope
from .plan import PARTS

HELD, NOT_HELD, OPEN, NOT_RUN = "held", "did not hold", "not decided", "not run"
WORDS = {HELD: "dominates", NOT_HELD: "does not dominate", OPEN: "is not decided"}
JUDGED = ("ES", "GS", "LS", "ES_exact", "GS_exact", "KS")
PAIRS = 30


class Verdict(NamedTuple):
    """A claim's outcome, and the sentence that gives its numbers."""

    outcome: str
    sentence: str


def judge(part: str, evidence: Evidence) -> Verdict:
    """The verdict on a part; NOT_RUN where its rule finds too little."""
    missing = ", ".join(name for name in PARTS[part].settings if not evidence.runs[name])
    return RULES.get(part, beyond)(evidence, part) or Verdict(NOT_RUN, f"Not run yet: {missing or 'enough of it'}.")


def _outcome(held: bool, lost: bool) -> str:
    return NOT_HELD if lost else HELD if held else OPEN


def _listed(gaps: dict[str, Estimate]) -> str:
    return "; ".join(f"{name} {gap.text(sign=True)}" for name, gap in gaps.items())


def _gaps(evidence: Evidence, part: str) -> dict[str, Estimate]:
    """The mean of ES, GS and LS of a part's first setting minus that of each other one that was run."""
    base, *others = PARTS[part].settings
    found = {name: paired(evidence.scores(base), evidence.scores(name), MAIN) for name in others}
    return {name: gap for name, gap in found.items() if gap is not None}


def normalization(evidence: Evidence, part: str) -> Verdict | None:
    """Claim 1."""
    stable, raw, diagonal = (evidence.pooled(name, "ES") for name in ("stableedit", "raw", "diagonal"))
    if stable and raw is None and evidence.diverged("raw"):
        said = f"Without normalization the numbers stopped being finite; with whitening ES is {stable.text()}."
        return Verdict(HELD, said)
    if stable is None or raw is None:
        return None
    said = f"ES after the last edit is {raw.text()} without normalization and {stable.text()} with whitening"
    gap = _gaps(evidence, part).get("raw")
    said += f"; the mean of ES, GS and LS differs by {gap.text(sign=True)}" if gap else ""
    said += f"; per coordinate ES is {diagonal.text()}" if diagonal else ""
    return Verdict(_outcome(raw.high < stable.low / 2, raw.low > stable.high / 2), f"{said}.")


def cumulative(evidence: Evidence, _: str) -> Verdict | None:
    """Claim 2."""
    curves = evidence.curves("stableedit", "immediate", "ES")
    found = slope(curves, "at", "ES")
    if found is None:
        return None
    first, last = (mean(pd.concat(thirds)) for thirds in zip(*_ends(curves, "ES", 3), strict=True))
    said = f"Immediate ES changes by {found.times(1000).text(4, sign=True)} per 1,000 edits before it"
    if first and last:
        said += f"; the mean of the first third of the batches is {first.text()}, of the last {last.text()}"
    return Verdict(_outcome(found.low > 0, found.high < 0), f"{said}.")


def _ends(curves: pd.DataFrame, y: str, parts: int) -> Iterable[tuple[pd.Series, pd.Series]]:
    """The first and the last of so many parts of every seed's curve."""
    for _, curve in curves.groupby("seed")[y]:
        size = max(1, len(curve) // parts)
        yield curve[:size], curve[-size:]


def warmup(evidence: Evidence, part: str) -> Verdict | None:
    """Claim 3."""
    gaps = {name.removeprefix("warmup_"): gap for name, gap in _gaps(evidence, part).items()}
    if "none" not in gaps:
        return None
    said = f"The start's mean of ES, GS and LS minus that of each other position: {_listed(gaps)}."
    return Verdict(_outcome(gaps["none"].low > 0, any(gap.high < 0 for gap in gaps.values())), said)


def whitening(evidence: Evidence, part: str) -> Verdict | None:
    """Claim 4."""
    gaps = _gaps(evidence, part)
    diagonal = gaps.pop("diagonal", None)
    if diagonal is None:
        return None
    against = _listed({f"alpha {name.removeprefix('alpha_')}": gap.times(-1) for name, gap in gaps.items()})
    said = f"Full whitening minus diagonal: {diagonal.text(sign=True)}"
    said += f"; against alpha 10: {against}" if against else ""
    return Verdict(_outcome(diagonal.low > 0, diagonal.high < 0), f"{said}.")


def shifts(evidence: Evidence, _: str) -> Verdict | None:
    """Claim 5."""
    found = slope(evidence.curves("stableedit", "step", "cosine"), "at", "cosine")
    if found is None:
        return None
    norms = evidence.curves("stableedit", "step", "shift_norm")
    ratios = [last.mean() / max(first.mean(), 1e-30) for first, last in _ends(norms, "shift_norm", 10)]
    said = f"The norm of the last tenth of the shifts is {', '.join(f'{ratio:.2f}' for ratio in ratios)} times that of "
    said += f"the first, seed by seed; |cosine| changes by {found.times(100).text(4, sign=True)} per 100 steps."
    return Verdict(_outcome(found.high < 0, found.low > 0 or max(ratios) > 1.5), said)


def editors(evidence: Evidence, part: str) -> Verdict | None:
    """Claim 6."""
    gaps = _gaps(evidence, part)
    missing = ", ".join(name for name in PARTS[part].settings[1:] if name not in gaps)
    outcome = _outcome(not missing and all(g.low > 0 for g in gaps.values()), any(g.high < 0 for g in gaps.values()))
    said = f"StableEdit's mean of ES, GS and LS minus that of each: {_listed(gaps)}."
    said += f" Not run yet: {missing}." if missing else ""
    return Verdict(outcome, said) if gaps else None


def gains(evidence: Evidence, name: str, base: str) -> dict[str, Estimate]:
    """A setting minus another by metric: paired where PAIRS edits or more were scored in both, else from both means."""
    found = {}
    for metric in JUDGED:
        gap = paired(evidence.scores(name), evidence.scores(base), (metric,))
        mine, theirs = evidence.pooled(name, metric), evidence.pooled(base, metric)
        if gap is not None and gap.n >= PAIRS:
            found[metric] = gap
        elif mine and theirs:
            found[metric] = difference(mine, theirs)
    return found


def dominance(found: dict[str, Estimate]) -> str:
    """HELD: no metric lower, two or more higher by more than their interval; OPEN: lower ones within their interval."""
    gaps = found.values()
    lost = sum(gap.low > 0 for gap in gaps) < 2 or any(gap.high < 0 for gap in gaps)
    return _outcome(all(gap.value >= 0 for gap in gaps), lost)


def beyond(evidence: Evidence, part: str) -> Verdict | None:
    """Whether a setting of the part dominates its first one."""
    base, *others = PARTS[part].settings
    found = {name: dominance(gaps) for name in others if (gaps := gains(evidence, name, base))}
    said = f"Against {base}: {'; '.join(f'{name} {WORDS[outcome]}' for name, outcome in found.items())}."
    return Verdict(_outcome(HELD in found.values(), {*found.values()} == {NOT_HELD}), said) if found else None


RULES = {rule.__name__: rule for rule in (normalization, cumulative, warmup, whitening, shifts, editors)}
