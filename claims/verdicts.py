"""Whether each claim held: the rules of plan.yaml, applied to what the runs left."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from .evidence import MAIN, Evidence
from .plan import PARTS
from .stats import Estimate, difference, mean, paired, slope

HELD, NOT_HELD, OPEN, NOT_RUN = "held", "did not hold", "not decided", "not run"
JUDGED = ("ES", "GS", "LS", "ES_exact", "GS_exact", "KS")
PAIRS = 30


@dataclass(frozen=True)
class Verdict:
    """A claim's outcome, and the sentence that gives its numbers."""

    outcome: str
    sentence: str


def judge(part: str, evidence: Evidence) -> Verdict:
    """The verdict on a part; NOT_RUN where what its rule needs is missing."""
    return beyond(evidence, part) if PARTS[part].compared else RULES[part](evidence)


def _not_run(*missing: str) -> Verdict:
    return Verdict(NOT_RUN, f"Not run yet: {', '.join(missing)}.")


def _sign(found: Estimate) -> str:
    return HELD if found.above else NOT_HELD if found.below else OPEN


def _gaps(evidence: Evidence, part: str) -> dict[str, Estimate]:
    """The mean of ES, GS and LS of a part's first setting minus that of each other one that was run."""
    base, *others = PARTS[part].settings
    found = {name: paired(evidence.scores(base), evidence.scores(name), MAIN) for name in others}
    return {name: gap for name, gap in found.items() if gap is not None}


def _listed(gaps: dict[str, Estimate], prefix: str = "") -> str:
    return "; ".join(f"{name.removeprefix(prefix)} {gap.text(sign=True)}" for name, gap in gaps.items())


def normalization(evidence: Evidence) -> Verdict:
    """Claim 1."""
    stable, raw = evidence.pooled("stableedit", "ES"), evidence.pooled("raw", "ES")
    if stable is None:
        return _not_run("stableedit")
    if raw is None:
        if not evidence.diverged("raw"):
            return _not_run("raw")
        return Verdict(
            HELD, f"Without normalization the numbers stopped being finite; with whitening ES is {stable.text()}."
        )
    outcome = HELD if raw.high < stable.low / 2 else NOT_HELD if raw.low > stable.high / 2 else OPEN
    sentence = f"ES after the last edit is {raw.text()} without normalization and {stable.text()} with whitening"
    gaps, diagonal = _gaps(evidence, "normalization"), evidence.pooled("diagonal", "ES")
    if "raw" in gaps:
        sentence += f"; the mean of ES, GS and LS differs by {gaps['raw'].text(sign=True)}"
    return Verdict(outcome, sentence + (f"; per coordinate ES is {diagonal.text()}." if diagonal else "."))


def cumulative(evidence: Evidence) -> Verdict:
    """Claim 2."""
    curves = evidence.over_time("stableedit", "immediate").reindex(columns=["seed", "edits", "ES"]).dropna()
    found = slope(curves, "edits", "ES")
    if found is None:
        return _not_run("stableedit")
    sentence = f"Immediate ES changes by {found.text(4, sign=True, scale=1000)} per 1,000 edits before it"
    first, last = ends(curves, "ES", 3)
    if first and last:
        sentence += f"; the mean of the first third of the batches is {first.text()}, of the last {last.text()}"
    return Verdict(_sign(found), sentence + ".")


def ends(curves: pd.DataFrame, y: str, parts: int) -> tuple[Estimate | None, Estimate | None]:
    """Means of the first and of the last of so many parts of every seed's curve."""
    cut = [(table[y], max(1, len(table) // parts)) for _, table in curves.groupby("seed")]
    first, last = (pd.concat(values) for values in zip(*((ys[:n], ys[-n:]) for ys, n in cut), strict=True))
    return mean(first.tolist()), mean(last.tolist())


def warmup(evidence: Evidence) -> Verdict:
    """Claim 3."""
    gaps = {name.removeprefix("warmup_"): gap for name, gap in _gaps(evidence, "warmup").items()}
    if "none" not in gaps:
        return _not_run("stableedit or warmup_none")
    lost = any(gap.below for gap in gaps.values())
    outcome = NOT_HELD if lost else HELD if gaps["none"].above else OPEN
    return Verdict(outcome, f"The start's mean of ES, GS and LS minus that of each other position: {_listed(gaps)}.")


def whitening(evidence: Evidence) -> Verdict:
    """Claim 4."""
    gaps = _gaps(evidence, "whitening")
    if "diagonal" not in gaps:
        return _not_run("stableedit or diagonal")
    diagonal = gaps.pop("diagonal")
    against = {f"alpha {name.removeprefix('alpha_')}": -gap for name, gap in gaps.items()}
    sentence = f"Full whitening minus diagonal: {diagonal.text(sign=True)}"
    return Verdict(_sign(diagonal), sentence + (f"; against alpha 10: {_listed(against)}." if against else "."))


def shifts(evidence: Evidence) -> Verdict:
    """Claim 5."""
    curves = evidence.shifts("stableedit")
    found = slope(curves, "step", "cosine")
    if found is None:
        return _not_run("stableedit")
    ratios = [growth(table["norm"]) for _, table in curves.groupby("seed")]
    bounded = max(ratios) <= 1.5
    outcome = HELD if bounded and found.below else NOT_HELD if not bounded or found.above else OPEN
    listed = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    sentence = f"The norm of the last tenth of the shifts is {listed} times that of the first, seed by seed; "
    return Verdict(outcome, f"{sentence}|cosine| changes by {found.text(4, sign=True, scale=100)} per 100 steps.")


def growth(norms: pd.Series) -> float:
    """Mean of the last tenth over the mean of the first."""
    cut = max(1, len(norms) // 10)
    return norms[-cut:].mean() / max(norms[:cut].mean(), 1e-30)


def editors(evidence: Evidence) -> Verdict:
    """Claim 6."""
    gaps = _gaps(evidence, "editors")
    if not gaps:
        return _not_run("stableedit or the other editors")
    sentence = f"StableEdit's mean of ES, GS and LS minus that of each: {_listed(gaps)}."
    missing = [name for name in PARTS["editors"].settings[1:] if name not in gaps]
    if any(gap.below for gap in gaps.values()):
        return Verdict(NOT_HELD, sentence)
    if missing:
        return Verdict(OPEN, f"{sentence} Not run yet: {', '.join(missing)}.")
    return Verdict(HELD if all(gap.above for gap in gaps.values()) else OPEN, sentence)


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


def beyond(evidence: Evidence, part: str) -> Verdict:
    """Whether a setting of the part dominates its first one."""
    base, *others = PARTS[part].settings
    found = {name: gaps for name in others if (gaps := gains(evidence, name, base))}
    if not found:
        return _not_run(f"{base} or the other settings")
    words = {HELD: "dominates", NOT_HELD: "does not dominate", OPEN: "is not decided"}
    outcomes = {name: dominance(gaps) for name, gaps in found.items()}
    overall = next((outcome for outcome in (HELD, OPEN) if outcome in outcomes.values()), NOT_HELD)
    listed = "; ".join(f"{name} {words[outcome]}" for name, outcome in outcomes.items())
    return Verdict(overall, f"Against {base}: {listed}.")


RULES = {
    "normalization": normalization,
    "cumulative": cumulative,
    "warmup": warmup,
    "whitening": whitening,
    "shifts": shifts,
    "editors": editors,
}
