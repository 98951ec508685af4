"""Whether each claim held: the rules of plan.yaml, applied to what the runs left."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import pandas as pd

from .evidence import MAIN, Evidence
from .plan import PARTS
from .stats import Estimate, difference, mean, paired, slope

HELD, NOT_HELD, OPEN, NOT_RUN = "held", "did not hold", "not decided", "not run"
WORDS = {HELD: "dominates", NOT_HELD: "does not dominate", OPEN: "is not decided"}
JUDGED = ("ES", "GS", "LS", "ES_exact", "GS_exact", "KS")
PAIRS = 30
Found = TypeVar("Found")


class Verdict(NamedTuple):
    """A claim's outcome, and the sentence that gives its numbers."""

    outcome: str
    sentence: str


class Missing(Exception):
    """What a rule needs was not run."""


def judge(part: str, evidence: Evidence) -> Verdict:
    """The verdict on a part; NOT_RUN where what its rule needs is missing."""
    try:
        return Verdict(*RULES.get(part, beyond)(evidence, part))
    except Missing as missing:
        return Verdict(NOT_RUN, f"Not run yet: {missing}.")


def needed(found: Found | None, name: str) -> Found:
    """What was found. Raises Missing, naming what would have to run."""
    if found is None:
        raise Missing(name)
    return found


def _sign(found: Estimate) -> str:
    return HELD if found.above else NOT_HELD if found.below else OPEN


def _gaps(evidence: Evidence, part: str) -> dict[str, Estimate]:
    """The mean of ES, GS and LS of a part's first setting minus that of each other one that was run."""
    base, *others = PARTS[part].settings
    found = {name: paired(evidence.scores(base), evidence.scores(name), MAIN) for name in others}
    return {name: gap for name, gap in found.items() if gap is not None}


def _listed(gaps: dict[str, Estimate]) -> str:
    return "; ".join(f"{name} {gap.text(sign=True)}" for name, gap in gaps.items())


def normalization(evidence: Evidence, part: str) -> tuple[str, str]:
    """Claim 1."""
    stable, raw = needed(evidence.pooled("stableedit", "ES"), "stableedit"), evidence.pooled("raw", "ES")
    if raw is None and evidence.diverged("raw"):
        return HELD, f"Without normalization the numbers stopped being finite; with whitening ES is {stable.text()}."
    raw = needed(raw, "raw")
    outcome = HELD if raw.high < stable.low / 2 else NOT_HELD if raw.low > stable.high / 2 else OPEN
    sentence = f"ES after the last edit is {raw.text()} without normalization and {stable.text()} with whitening"
    gap, diagonal = _gaps(evidence, part).get("raw"), evidence.pooled("diagonal", "ES")
    sentence += f"; the mean of ES, GS and LS differs by {gap.text(sign=True)}" if gap else ""
    return outcome, sentence + (f"; per coordinate ES is {diagonal.text()}." if diagonal else ".")


def cumulative(evidence: Evidence, _: str) -> tuple[str, str]:
    """Claim 2."""
    curves = evidence.over_time("stableedit", "immediate").reindex(columns=["seed", "edits", "ES"]).dropna()
    found = needed(slope(curves, "edits", "ES"), "stableedit")
    first, last = (mean(pd.concat(thirds)) for thirds in zip(*ends(curves, "ES", 3), strict=True))
    sentence = f"Immediate ES changes by {found.text(4, sign=True, scale=1000)} per 1,000 edits before it"
    if first and last:
        sentence += f"; the mean of the first third of the batches is {first.text()}, of the last {last.text()}"
    return _sign(found), sentence + "."


def ends(curves: pd.DataFrame, y: str, parts: int) -> list[tuple[pd.Series, pd.Series]]:
    """The first and the last of so many parts of every seed's curve."""
    found = [(values, max(1, len(values) // parts)) for _, values in curves.groupby("seed")[y]]
    return [(values[:n], values[-n:]) for values, n in found]


def warmup(evidence: Evidence, part: str) -> tuple[str, str]:
    """Claim 3."""
    gaps = {name.removeprefix("warmup_"): gap for name, gap in _gaps(evidence, part).items()}
    none, lost = needed(gaps.get("none"), "stableedit or warmup_none"), any(gap.below for gap in gaps.values())
    sentence = f"The start's mean of ES, GS and LS minus that of each other position: {_listed(gaps)}."
    return NOT_HELD if lost else HELD if none.above else OPEN, sentence


def whitening(evidence: Evidence, part: str) -> tuple[str, str]:
    """Claim 4."""
    gaps = _gaps(evidence, part)
    diagonal = needed(gaps.pop("diagonal", None), "stableedit or diagonal")
    against = {f"alpha {name.removeprefix('alpha_')}": -gap for name, gap in gaps.items()}
    sentence = f"Full whitening minus diagonal: {diagonal.text(sign=True)}"
    return _sign(diagonal), sentence + (f"; against alpha 10: {_listed(against)}." if against else ".")


def shifts(evidence: Evidence, _: str) -> tuple[str, str]:
    """Claim 5."""
    curves = evidence.shifts("stableedit")
    found = needed(slope(curves, "step", "cosine"), "stableedit")
    ratios = [last.mean() / max(first.mean(), 1e-30) for first, last in ends(curves, "norm", 10)]
    bounded = max(ratios) <= 1.5
    listed = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    sentence = f"The norm of the last tenth of the shifts is {listed} times that of the first, seed by seed; "
    sentence += f"|cosine| changes by {found.text(4, sign=True, scale=100)} per 100 steps."
    return HELD if bounded and found.below else NOT_HELD if not bounded or found.above else OPEN, sentence


def editors(evidence: Evidence, part: str) -> tuple[str, str]:
    """Claim 6."""
    gaps = needed(_gaps(evidence, part) or None, "stableedit or the other editors")
    sentence = f"StableEdit's mean of ES, GS and LS minus that of each: {_listed(gaps)}."
    if any(gap.below for gap in gaps.values()):
        return NOT_HELD, sentence
    missing = [name for name in PARTS[part].settings[1:] if name not in gaps]
    if missing:
        return OPEN, f"{sentence} Not run yet: {', '.join(missing)}."
    return HELD if all(gap.above for gap in gaps.values()) else OPEN, sentence


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
    if sum(gap.above for gap in found.values()) < 2 or any(gap.below for gap in found.values()):
        return NOT_HELD
    return HELD if all(gap.value >= 0 for gap in found.values()) else OPEN


def beyond(evidence: Evidence, part: str) -> tuple[str, str]:
    """Whether a setting of the part dominates its first one."""
    base, *others = PARTS[part].settings
    found = {name: dominance(gaps) for name in others if (gaps := gains(evidence, name, base))}
    outcomes = needed(found or None, f"{base} or the other settings").values()
    listed = "; ".join(f"{name} {WORDS[outcome]}" for name, outcome in found.items())
    return next((one for one in (HELD, OPEN) if one in outcomes), NOT_HELD), f"Against {base}: {listed}."


RULES = {
    "normalization": normalization,
    "cumulative": cumulative,
    "warmup": warmup,
    "whitening": whitening,
    "shifts": shifts,
    "editors": editors,
}
