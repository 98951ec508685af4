"""Whether each claim held: a rule stated in words, applied to what the runs left."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from .evidence import MAIN, Evidence
from .plan import PARTS
from .stats import Estimate, difference, mean, paired, slope

HELD, NOT_HELD, OPEN, NOT_RUN = "held", "did not hold", "not decided", "not run"


@dataclass(frozen=True)
class Verdict:
    """A claim's outcome, the sentence that gives its numbers, and the rule that it was judged by."""

    outcome: str
    sentence: str
    rule: str


def judge(part: str, evidence: Evidence) -> Verdict:
    """The verdict on a part; NOT_RUN where what its rule needs is missing."""
    return RULES[part](evidence)


def _not_run(rule: str, *missing: str) -> Verdict:
    return Verdict(NOT_RUN, f"Not run yet: {', '.join(missing)}.", rule)


def _sign(found: Estimate | None) -> str:
    if found is None:
        return OPEN
    return HELD if found.above else NOT_HELD if found.below else OPEN


def normalization(evidence: Evidence) -> Verdict:
    """Claim 1."""
    rule = (
        "Held: the upper bound of ES without normalization lies below half the lower bound of ES with whitening, or "
        "the run without it ended in numbers that are not finite. Did not hold: its lower bound lies above half the "
        "upper bound of ES with whitening."
    )
    stable, raw = evidence.pooled("stableedit", "ES"), evidence.pooled("raw", "ES")
    if stable is None:
        return _not_run(rule, "stableedit")
    if raw is None:
        if not evidence.diverged("raw"):
            return _not_run(rule, "raw")
        sentence = f"Without normalization the numbers stopped being finite; with whitening ES is {stable.text()}."
        return Verdict(HELD, sentence, rule)
    outcome = HELD if raw.high < stable.low / 2 else NOT_HELD if raw.low > stable.high / 2 else OPEN
    sentence = f"ES after the last edit is {raw.text()} without normalization and {stable.text()} with whitening"
    gap = paired(evidence.scores("stableedit"), evidence.scores("raw"), MAIN)
    if gap:
        sentence += f"; the mean of ES, GS and LS differs by {gap.text(sign=True)}"
    diagonal = evidence.pooled("diagonal", "ES")
    return Verdict(outcome, sentence + (f"; per coordinate ES is {diagonal.text()}." if diagonal else "."), rule)


def cumulative(evidence: Evidence) -> Verdict:
    """Claim 2."""
    rule = (
        "The slope of a batch's ES right after it was written against the number of edits before it, least squares "
        "with an intercept per seed. Held: the interval lies above 0. Did not hold: below 0."
    )
    curves = evidence.over_time("stableedit", "immediate", "ES")
    found = slope(list(curves.values()))
    if found is None:
        return _not_run(rule, "stableedit")
    scaled = Estimate(*(1000 * x for x in (found.value, found.low, found.high)), found.n)
    sentence = f"Immediate ES changes by {scaled.text(4, sign=True)} per 1,000 edits before it"
    first, last = thirds([ys for _, ys in curves.values()])
    if first and last:
        sentence += f"; the mean of the first third of the batches is {first.text()}, of the last {last.text()}"
    return Verdict(_sign(found), sentence + ".", rule)


def thirds(curves: list[list[float]]) -> tuple[Estimate | None, Estimate | None]:
    """Means of the first and of the last third of every curve."""
    cut = [max(1, len(curve) // 3) for curve in curves]
    first = [y for curve, n in zip(curves, cut, strict=True) for y in curve[:n]]
    return mean(first), mean([y for curve, n in zip(curves, cut, strict=True) for y in curve[-n:]])


def warmup(evidence: Evidence) -> Verdict:
    """Claim 3."""
    rule = (
        "Paired over the edits, the mean of ES, GS and LS. Held: a warm-up at the start is higher than none by more "
        "than the interval, and no later position is higher than the start by more than the interval. Did not hold: "
        "none, or a later position, is higher than the start by more than the interval."
    )
    gaps = {}
    for name in PARTS["warmup"][1:]:
        gap = paired(evidence.scores("stableedit"), evidence.scores(name), MAIN)
        if gap is not None:
            gaps[name.removeprefix("warmup_")] = gap
    if "none" not in gaps:
        return _not_run(rule, "stableedit or warmup_none")
    lost = [name for name, gap in gaps.items() if gap.below]
    outcome = NOT_HELD if lost else HELD if gaps["none"].above else OPEN
    listed = "; ".join(f"{name} {gap.text(sign=True)}" for name, gap in gaps.items())
    return Verdict(outcome, f"The start's mean of ES, GS and LS minus that of each other position: {listed}.", rule)


def whitening(evidence: Evidence) -> Verdict:
    """Claim 4."""
    rule = (
        "Paired over the edits, the mean of ES, GS and LS of full whitening minus that of per-coordinate "
        "normalization with the same alpha and warm-up, each at its own best step size. Held: the interval lies "
        "above 0. Did not hold: below 0."
    )
    gap = paired(evidence.scores("stableedit"), evidence.scores("diagonal"), MAIN)
    if gap is None:
        return _not_run(rule, "stableedit or diagonal")
    sentence = f"Full whitening minus diagonal: {gap.text(sign=True)}"
    others = {name: paired(evidence.scores(name), evidence.scores("stableedit"), MAIN) for name in PARTS["whitening"]}
    listed = [
        f"alpha {name.removeprefix('alpha_')} {gap.text(sign=True)}"
        for name, gap in others.items() if gap and name.startswith("alpha")
    ]  # fmt: skip
    return Verdict(_sign(gap), sentence + (f"; against alpha 10: {'; '.join(listed)}." if listed else "."), rule)


def shifts(evidence: Evidence) -> Verdict:
    """Claim 5."""
    rule = (
        "Norms: the mean over the last tenth of the steps is at most 1.5 times that over the first tenth, on every "
        "seed. Cosines: the slope of |cosine to the last shift| against steps has its interval below 0. Held: both. "
        "Did not hold: a norm ratio above 1.5, or a slope with its interval above 0."
    )
    curves = evidence.shifts("stableedit")
    turned = {seed: [(i, c) for i, c in enumerate(cosines) if c is not None] for seed, (_, cosines) in curves.items()}
    found = slope([([i for i, _ in points], [c for _, c in points]) for points in turned.values() if points])
    if found is None:
        return _not_run(rule, "stableedit")
    ratios = [growth(norms) for norms, _ in curves.values()]
    bounded = max(ratios) <= 1.5
    outcome = HELD if bounded and found.below else NOT_HELD if not bounded or found.above else OPEN
    scaled = Estimate(*(100 * x for x in (found.value, found.low, found.high)), found.n)
    listed = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    sentence = f"The norm of the last tenth of the shifts is {listed} times that of the first, seed by seed; "
    return Verdict(outcome, f"{sentence}|cosine| changes by {scaled.text(4, sign=True)} per 100 steps.", rule)


def growth(norms: list[float]) -> float:
    """Mean of the last tenth over the mean of the first."""
    cut = max(1, len(norms) // 10)
    return (sum(norms[-cut:]) / cut) / max(sum(norms[:cut]) / cut, 1e-30)


def editors(evidence: Evidence) -> Verdict:
    """Claim 6."""
    rule = (
        "Paired over the edits, the mean of ES, GS and LS. Held: StableEdit is higher than each of the other four by "
        "more than the interval. Did not hold: one of them is higher than StableEdit by more than the interval."
    )
    others = PARTS["editors"][1:]
    gaps = {name: paired(evidence.scores("stableedit"), evidence.scores(name), MAIN) for name in others}
    there = {name: gap for name, gap in gaps.items() if gap is not None}
    if not there:
        return _not_run(rule, "stableedit or the other editors")
    listed = "; ".join(f"{name} {gap.text(sign=True)}" for name, gap in there.items())
    sentence = f"StableEdit's mean of ES, GS and LS minus that of each: {listed}."
    missing = [name for name in others if name not in there]
    if any(gap.below for gap in there.values()):
        return Verdict(NOT_HELD, sentence, rule)
    if missing:
        return Verdict(OPEN, f"{sentence} Not run yet: {', '.join(missing)}.", rule)
    return Verdict(HELD if all(gap.above for gap in there.values()) else OPEN, sentence, rule)


COMPARED = ("beyond", "precision", "sites", "questions", "questions_step")
"""The parts that hold settings against their first one, metric by metric."""
JUDGED = ("ES", "GS", "LS", "ES_exact", "GS_exact", "KS")
PAIRS = 30


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


def beyond(evidence: Evidence, part: str = "beyond") -> Verdict:
    """Whether a setting of the part beats the published one."""
    rule = (
        f"Over {', '.join(JUDGED)}, against the part's first setting on the same edits, a setting dominates where no "
        "metric is lower and at least two are higher by more than their interval; it is not decided where two are "
        "higher and what is lower is lower by less than its interval. Differences are paired edit by edit; where fewer "
        f"than {PAIRS} edits were measured in both (and for KS) they are those of the two means."
    )
    base, *others = PARTS[part]
    found = {name: gains(evidence, name, base) for name in others}
    found = {name: gaps for name, gaps in found.items() if gaps}
    if not found:
        return _not_run(rule, f"{base} or the other settings")
    words = {HELD: "dominates", NOT_HELD: "does not dominate", OPEN: "is not decided"}
    outcomes = {name: dominance(gaps) for name, gaps in found.items()}
    overall = HELD if HELD in outcomes.values() else OPEN if OPEN in outcomes.values() else NOT_HELD
    listed = "; ".join(f"{name} {words[outcome]}" for name, outcome in outcomes.items())
    return Verdict(overall, f"Against {base}: {listed}.", rule)


RULES = {
    "normalization": normalization, "cumulative": cumulative, "warmup": warmup, "whitening": whitening,
    "shifts": shifts, "editors": editors,
    **{part: partial(beyond, part=part) for part in COMPARED},
}  # fmt: skip
