"""Generated answers before a judge: who is asked what, verdicts as metrics, agreement with exact match."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from config.schema import EvalConfig
from data.base import Edit
from files import write_lines
from lifelong.answers import grouped, probes
from lifelong.judge import TEMPLATE, JudgeError, judge_of, verdict
from report.metrics import Tally

log = logging.getLogger(__name__)

JUDGED = ("ES", "GS")
WORKERS = 8  # questions at a time: servers batch them


@dataclass(frozen=True, slots=True)
class Asked:
    """A generated answer: `when` says which model gave it, before or after editing."""

    index: int
    metric: str
    when: str
    prompt: str
    target: str
    answer: str
    exact: bool

    @property
    def question(self) -> str:
        """What the judge is asked."""
        return TEMPLATE.format(prompt=self.prompt, target=self.target, answer=self.answer)


class Judging:
    """Takes in the generated answers of a run, before and after; `finish` has them judged all at once.

    Those before are judged then, too, so that the same judge gives both numbers; nothing of it is in eval.cache_dir.
    """

    def __init__(self, cfg: EvalConfig) -> None:
        self.judge, self.asked, self.summary = judge_of(cfg), list[Asked](), dict[str, Any]()

    def add(self, index: int, edit: Edit, scores: Mapping[str, Mapping[str, Any] | None]) -> None:
        """Take in an edit's answers; `scores` by `when`."""
        if self.judge is None:
            return
        kinds = [(metric, prompt) for metric, prompt, _ in probes(edit, mhop=False) if metric in JUDGED]
        target = ", or: ".join([edit.answer, *edit.aliases])
        for when, found in scores.items():
            for metric, prompts in grouped([kind for kind, _ in kinds], [prompt for _, prompt in kinds]).items():
                each = found[metric].get("each", [found[metric]]) if found else []
                for prompt, one in zip(prompts, each, strict=bool(found)):
                    self.asked.append(Asked(index, metric, when, prompt, target, one["generated"], one["exact"]))

    def finish(self, path: Path, tallies: Mapping[str, Tally], between: Callable[[], None]) -> None:
        """Ask the judge, write every verdict to `path`, and add ES_judge and GS_judge to the tallies by `when`.

        A judge that fails takes nothing but these two metrics; what it said until then is written.
        """
        if self.judge is None or not self.asked:
            return
        replies, self.summary = dict[str, str](), {"url": self.judge.url, "model": self.judge.model}
        try:
            self._ask(replies, between)
        except JudgeError as error:
            self.summary["failed"] = str(error)[:300]
            log.warning("eval.judge_url=%s: %s: ES_judge and GS_judge are left out; %d of %d questions were answered",
                        self.judge.url, self.summary["failed"], len(replies), len(self.questions()))  # fmt: skip
        said = [(one, replies[one.question]) for one in self.asked if one.question in replies]
        lines = [
            asdict(one) | {"question": one.question, "reply": reply, "verdict": verdict(reply)} for one, reply in said
        ]
        write_lines(path, lines)
        self.summary |= agreed(lines)
        if "failed" not in self.summary:
            for (when, metric, _), verdicts in _by_edit(lines).items():
                tallies[when].add(f"{metric}_judge", fmean(verdicts))

    def questions(self) -> list[str]:
        """What is asked, once each."""
        return list(dict.fromkeys(one.question for one in self.asked))

    def _ask(self, replies: dict[str, str], between: Callable[[], None]) -> None:
        assert self.judge is not None
        questions = self.questions()
        with ThreadPoolExecutor(WORKERS) as pool:
            for start in range(0, len(questions), WORKERS):
                some = questions[start : start + WORKERS]
                waiting = [(question, pool.submit(self.judge.reply, question)) for question in some]
                failed = [future.exception() for _, future in waiting]  # all are waited for, so that none is lost
                replies |= {question: future.result() for question, future in waiting if future.exception() is None}
                for error in filter(None, failed):
                    raise error
                between()

    def told(self) -> dict[str, Any]:
        """The part of results.json."""
        return {"judge": self.summary} if self.summary else {}


def agreed(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """How verdicts and exact match go together: `n` with a verdict, the share that is alike, the two ways to differ."""
    pairs = [(line["verdict"], line["exact"]) for line in lines if line["verdict"] is not None]
    found: dict[str, Any] = {"n": len(pairs), "unclear": len(lines) - len(pairs)}
    found["agreement"] = fmean(said == exact for said, exact in pairs) if pairs else None
    return found | {"yes_not_exact": pairs.count((True, False)), "no_but_exact": pairs.count((False, True))}


def _by_edit(lines: list[dict[str, Any]]) -> dict[tuple[str, str, int], list[bool]]:
    clear = [line for line in lines if line["verdict"] is not None]
    return grouped(
        ((line["when"], line["metric"], line["index"]) for line in clear), (line["verdict"] for line in clear)
    )
