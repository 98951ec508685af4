"""Scores of edits with the model as it stands: teacher-forced for all, generated for a sample, locality against before.

Shape suffixes: M answer positions, W vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from data.base import Edit, Probe
from data.batches import prompt_ids
from data.source import RecordFile
from lifelong.answers import Answered, chunks, contains, exact, generate, grouped, probes
from lifelong.probing import Likelihoods, Pair, Probing, not_raised, read
from lifelong.scored_model import ScoredModel
from report.metrics import TOOK, Tally

Scores = dict[str, dict[str, Any]]
"""What one edit's prompts gave, by metric: ids, prediction, tokens, all; generated, exact, contain where generated.

Of several prompts: the means of tokens, all, exact and contain, and under `each` what every prompt gave. Of probes that
compare likelihoods: answers, log_p, and right or p.
"""
LOCAL = ("LS", "LS_neighbour", "LS_distracting")
"""Metrics of prompts whose answers must stay."""
MEANT = ("tokens", "all", "exact", "contain")
"""The numbers among them: averaged within an edit first, over edits then."""


def drawn(total: int, size: int | None, seed: int) -> list[int]:
    """`size` of range(total), one from each of as many equal stretches: spread over the whole run, in order."""
    if size is None or size >= total:
        return list(range(total))
    generator = random.Random(seed)
    return [generator.randrange(i * total // size, (i + 1) * total // size) for i in range(size)]


def at_positions(edits: Iterable[Edit], indices: list[int]) -> Iterator[tuple[int, Edit]]:
    """The edits at ascending positions, with these, in one streaming pass that ends at the last of them."""
    wanted = set(indices)
    for index, edit in enumerate(islice(edits, indices[-1] + 1 if indices else 0)):
        if index in wanted:
            yield index, edit


class Scorer:
    """Scores the edits of a run; `between` is called between chunks of edits."""

    def __init__(self, session: ScoredModel, edits: RecordFile | Sequence[Edit], between: Callable[[], None]) -> None:
        self.session, self.cfg, self.edits, self.between = session, session.cfg, edits, between
        cfg = self.cfg.eval
        self.chosen = drawn(len(edits), cfg.edits, self.cfg.seed)
        self.examples = self.some(cfg.examples)
        self.generated = set(self.some(cfg.generate_sample)) if cfg.generate else set()
        self.probing = Probing(session, self._spread)

    def _spread(self, size: int) -> Iterator[Edit]:
        return (edit for _, edit in at_positions(self.edits, drawn(len(self.edits), size, self.cfg.seed)))

    def some(self, size: int | None) -> list[int]:
        """Positions of `size` of the edits that are scored, the same at every call."""
        return [self.chosen[i] for i in drawn(len(self.chosen), size, self.cfg.seed)]

    def scored(self, label: str, tally: Tally) -> Iterator[tuple[int, Edit, Scores]]:
        """The edits that are scored, each with its position and scores, which the tally takes in."""
        for chunk in chunks(at_positions(self.edits, self.chosen), len(self.chosen), label, self.session.model.device):
            for (index, edit), scores in zip(chunk, self._score(chunk), strict=True):
                for metric, found in scores.items():
                    count(tally, metric, found, generated=index in self.generated)
                yield index, edit, scores
            self.between()

    def _score(self, edits: list[tuple[int, Edit]]) -> list[Scores]:
        asked = [(at, *probe) for at, (_, edit) in enumerate(edits) for probe in self._probes(edit)]
        answered, compared = self._answers([(prompt, answer) for *_, prompt, answer in asked], edits)
        found: list[dict[str, Any]] = []
        for one in answered:
            prediction = str(self.session.tokenizer.decode(one.chosen_M)).strip()
            found.append({"ids": one.chosen_M, "prediction": prediction, "tokens": one.accuracy, "all": one.all_right})
        spoken = [n for n, (at, metric, *_) in enumerate(asked) if self._is_generated(edits[at][0], metric)]
        for n, text in zip(spoken, self._texts([asked[n][2] for n in spoken]), strict=True):
            at, metric, _, answer = asked[n]
            right = [answer, *(edits[at][1].aliases if metric in ("ES", "GS") else ())]
            found[n] |= {"generated": text, "exact": any(exact(text, one) for one in right)}
            found[n]["contain"] = any(contains(text, one) for one in right)
        scores: list[Scores] = [{} for _ in edits]
        for (at, metric), each in grouped([probe[:2] for probe in asked], found).items():
            scores[at][metric] = each[0] if len(each) == 1 else _within(each)
        return [one | more for one, more in zip(scores, compared, strict=True)]

    def _probes(self, edit: Edit) -> list[Probe]:
        front = self.session.context(edit.prompt)
        return [*probes(edit, mhop=self.cfg.dataset.eval_mhop, front=front), *self.probing.texts(edit, front)]

    def _answers(self, pairs: list[Pair], edits: list[tuple[int, Edit]]) -> tuple[list[Answered], list[Scores]]:
        """The answers to the pairs, and by edit what its probes say that compare likelihoods."""
        options = [self.probing.options(*edit, self.session.context(edit[1].prompt)) for edit in edits]
        rows = {pair: row for row, pair in enumerate(pairs)}  # what is asked anyhow is not asked again
        wanted = dict.fromkeys(pair for one in options for those in one.values() for pair in those)
        more = [pair for pair in wanted if pair not in rows]
        rows |= {pair: len(pairs) + n for n, pair in enumerate(more)}
        likely = Likelihoods(self.session, [*pairs, *more], [rows[pair] for pair in wanted])
        found = self.session.answers([*pairs, *more], likely.look if wanted else None)
        compared = [
            {name: read(those, [likely.log_p[rows[pair]] for pair in those]) for name, those in one.items()}
            for one in options
        ]
        return found[: len(pairs)], compared

    def _texts(self, prompts: Sequence[str]) -> list[str]:
        cfg, model, tokenizer = self.cfg.eval, self.session.model, self.session.tokenizer
        ids = prompt_ids(tokenizer, prompts, self.cfg.dataset.prompt_format)
        limits: dict[str, Any] = {"max_new_tokens": cfg.max_new_tokens, "tokens_per_batch": cfg.tokens_per_batch}
        limits["ranks"] = self.session.ranks
        return generate(model, tokenizer, ids, **limits)

    def _is_generated(self, index: int, metric: str) -> bool:
        return (index in self.generated and metric in ("ES", "GS", "LS")) or (index in self.examples and metric == "ES")

    def measure_knowns(self, knowns: Sequence[tuple[str, str]], tally: Tally) -> None:
        """KS over known facts, into the tally."""
        for answered in self.session.answers(knowns):
            tally.add("KS", answered.accuracy)
            tally.add("KS_all", answered.all_right)

    def look_at(self, sample: list[int], look: Callable[[str, Tensor], None]) -> None:
        """Show the logits at the sample's answers of locality, the first of each kind, as METRIC/POSITION."""
        pairs: dict[str, Pair] = {}
        for index, edit in at_positions(self.edits, sample):
            for metric, *pair in self._probes(edit):
                if metric in LOCAL:
                    pairs.setdefault(f"{metric}/{index}", (pair[0], pair[1]))
        keys = list(pairs)
        self.session.answers(list(pairs.values()), lambda row, logits_MW: look(keys[row], logits_MW))


def _within(each: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: fmean(one[name] for one in each) for name in MEANT if name in each[0]} | {"each": each}


def each_of(found: dict[str, Any]) -> list[dict[str, Any]]:
    """What every prompt of one metric gave."""
    return found.get("each", [found])


def count(tally: Tally, metric: str, found: dict[str, Any], *, generated: bool) -> None:
    """Take an edit's scores by one metric, or what a probe gave, into the tally."""
    for ending, name in (("", "tokens"), ("_all", "all"), ("", "right"), ("_p", "p")):
        if name in found:
            tally.add(metric + ending, found[name])
    if generated and "exact" in found:
        tally.add(f"{metric}_exact", found["exact"])
        tally.add(f"{metric}_contain", found["contain"])


def compare(tally: Tally, before: Scores, after: Scores) -> None:
    """Locality: how much of what was said about unrelated prompts is still said; whether negation is heard."""
    for metric in (metric for metric in LOCAL if metric in after):
        pairs = list(zip(each_of(before[metric]), each_of(after[metric]), strict=True))
        tally.add(f"{metric}_agreement", fmean(agreement(then["ids"], now["ids"]) for then, now in pairs))
        if all("generated" in one for pair in pairs for one in pair):
            tally.add(f"{metric}_same", fmean(then["generated"] == now["generated"] for then, now in pairs))
    if "negation" in after:
        tally.add("negation", not_raised(before["negation"], after["negation"]))


def compare_taken(then: Tally, now: Tally, before: Scores | None, after: Scores) -> None:
    """Locality once more, of an edit that took: one that failed leaves everything as it was."""
    own, first = Tally(), Tally()
    for metric in LOCAL:
        for tally, scores in ((first, before or {}), (own, after)):
            if metric in scores:
                count(tally, metric, scores[metric], generated=False)
    if before is not None:
        compare(own, before, after)
    then.take(first, TOOK)
    now.take(own, TOOK)


def agreement(then: Sequence[int], now: Sequence[int]) -> float:
    """Share of positions with the same first choice."""
    return sum(a == b for a, b in zip(then, now, strict=True)) / len(then)


@dataclass
class Reference:
    """Log-probabilities before any edit at rows' answer positions, and how far the model has moved from them."""

    log_probs: dict[str, Tensor]

    def look(self, key: str, logits_MW: Tensor) -> None:
        """Keep a row's log-probabilities [M, W], on the CPU."""
        self.log_probs[key] = logits_MW.log_softmax(-1).cpu()

    def divergence(self, key: str, logits_MW: Tensor) -> float:
        """Mean over positions of KL(before || now), in nats."""
        before_MW = self.log_probs[key].to(logits_MW.device)
        now_MW = logits_MW.log_softmax(-1)
        return (before_MW.exp() * (before_MW - now_MW)).sum(-1).mean().item()

    def save(self, path: Path) -> None:
        """One tensor per row."""
        save_file({key: value.contiguous() for key, value in self.log_probs.items()}, path)

    @classmethod
    def load(cls, path: Path) -> Reference:
        """What save wrote."""
        return cls(load_file(path))
