"""The probes, computed by hand on three facts: plain loops, a token at a time, in float64."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import pytest
import torch
from transformers import PreTrainedModel

from config.compose import compose_config
from data.base import Edit
from editor.sites import find_sites
from lifelong import run as lifelong_run
from lifelong.evaluation import Evaluation
from lifelong.fullness import Ages, load_of
from lifelong.recorder import Recorder
from lifelong.scored_model import ScoredModel
from lifelong.scorer import Scorer
from lifelong.setup import Data
from report.metrics import METRICS, Tally
from tests.tiny import DATA, SITES, load_tiny, tiny_edits, tiny_tokenizer, tiny_words

TOKENIZER = tiny_tokenizer("tiny-llama")
PROBES = ("distracting", "verification", "choice", "negation", "took")
EVERY = f"eval.probes=[{','.join(PROBES)}]"
CAPITAL, RIVER, KING = "The capital of Kelmark is", "The longest river of Kelmark is", "The king of Kelmark is"


class Step(NamedTuple):
    """What a model says at one answer token: the first choice, the log-probability of the token, all of them."""

    right: bool
    chosen: int
    log_p: float
    all_W: torch.Tensor


def by_hand(model: PreTrainedModel, prompt: str, answer: str) -> list[Step]:
    """A forward pass of one sequence for each token of the answer."""
    ids = TOKENIZER(prompt)["input_ids"]
    steps = []
    for token in TOKENIZER(f" {answer}", add_special_tokens=False)["input_ids"]:
        with torch.no_grad():
            all_W = model(input_ids=torch.tensor([ids])).logits[0, -1].double().log_softmax(-1)
        steps.append(Step(int(all_W.argmax()) == token, int(all_W.argmax()), all_W[token].item(), all_W))
        ids = [*ids, token]
    return steps


def tokens(steps: list[Step]) -> float:
    return fmean(step.right for step in steps)


def whole(steps: list[Step]) -> bool:
    return all(step.right for step in steps)


def log_p(steps: list[Step]) -> float:
    return sum(step.log_p for step in steps)


def same(then: list[Step], now: list[Step]) -> float:
    return fmean(a.chosen == b.chosen for a, b in zip(then, now, strict=True))


def divergence(then: list[Step], now: list[Step]) -> float:
    return fmean((a.all_W.exp() * (a.all_W - b.all_W)).sum().item() for a, b in zip(then, now, strict=True))


def facts(taken: str, known: str) -> list[Edit]:
    """Three facts; the target of the first is what the edited model says, of the second what the unedited one does."""
    harbour, tower = ("unrelated", "The harbour of Ostrava is", "Ostrava"), ("unrelated", "The tower is in", "Rome")
    lake = ("neighbour", "The capital of Belland is", "Rome")
    first = Edit(0, CAPITAL, taken, None, "Water is made of", "hydrogen and oxygen", more=(tower, lake))
    second = Edit(1, RIVER, known, None, "The sun is a", "star", old_answer="the Rhine", more=(harbour,))
    third = Edit(2, KING, "Hallein the Second", None, None, None, old_answer="Otto", more=(lake,))
    return [first, second, third]


class Records(list[Edit]):
    """Edits, with what a file of records says of itself."""

    path, bad = DATA / "zsre_eval.json", dict[int, str]()


class Case(NamedTuple):
    """The three facts, the model before and after, and what the code under test measured."""

    edits: list[Edit]
    then: PreTrainedModel
    now: PreTrainedModel
    before: dict[str, tuple[float, int]]
    after: dict[str, tuple[float, int]]
    lines: list[dict[str, Any]]


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Case:
    """An edited model is imitated by noise on a weight."""
    torch.set_num_threads(1)
    folder: Path = tmp_path_factory.mktemp("probes")
    then = load_tiny("tiny-llama")
    now = copy.deepcopy(then)
    weight = now.get_submodule("model.layers.2.mlp.down_proj").weight.data
    weight += weight.std() * torch.randn(weight.shape, generator=torch.Generator().manual_seed(4))
    edits = Records(facts(said(now, CAPITAL), said(then, RIVER)))
    cfg = compose_config(tiny_words(EVERY, "eval.examples=0"))
    model = ScoredModel(cfg, copy.deepcopy(then), TOKENIZER)
    with Recorder(folder, cfg.wandb, "probes", {}) as recorder:
        data = Data(edits, None)  # type: ignore[arg-type]
        evaluation = Evaluation(model, data, {str(edits.path.resolve()): ""}, recorder, lambda: None)
        evaluation.measure_before()
        model.model.load_state_dict(now.state_dict())
        after, _ = evaluation.measure_after()
        assert evaluation.before is not None
    lines = [json.loads(line) for line in (folder / "edits.jsonl").read_text().splitlines()]
    return Case(list(edits), then, now, dict(evaluation.before), after, lines)


def said(model: PreTrainedModel, prompt: str) -> str:
    """A token that the model says next, as the text behind the blank."""
    with torch.no_grad():
        order = model(input_ids=torch.tensor([TOKENIZER(prompt)["input_ids"]])).logits[0, -1].argsort(descending=True)
    text = str(TOKENIZER.decode([int(order[0])])).strip()
    assert TOKENIZER(f" {text}", add_special_tokens=False)["input_ids"] == [int(order[0])], text
    return text


def local(edit: Edit, metric: str) -> list[tuple[str, str]]:
    """The prompts of a kind of locality, each with its answer."""
    unrelated = [] if edit.unrelated is None else [(edit.unrelated, str(edit.unrelated_answer))]
    unrelated += [(prompt, answer) for kind, prompt, answer in edit.more if kind == "unrelated"]
    near = [(prompt, answer) for kind, prompt, answer in edit.more if kind == "neighbour"]
    if metric == "LS_distracting":
        return [(f"{edit.prompt} {edit.answer}. {prompt}", answer) for prompt, answer in unrelated or near]
    return unrelated if metric == "LS" else near


@pytest.mark.parametrize("taken", [False, True])
@pytest.mark.parametrize("metric", ["LS", "LS_neighbour", "LS_distracting"])
def test_locality_by_kind(case, metric, taken):
    edits = [edit for edit in case.edits if not taken or whole(by_hand(case.now, edit.prompt, edit.answer))]
    assert len(edits) == (2 if taken else 3), "two of three took"
    rows = []
    for edit in edits:
        if pairs := local(edit, metric):
            then, now = ([by_hand(model, *pair) for pair in pairs] for model in (case.then, case.now))
            both = list(zip(then, now, strict=True))
            rows.append(
                {
                    "before": fmean(map(tokens, then)), "before_all": fmean(map(whole, then)),
                    "": fmean(map(tokens, now)), "_all": fmean(map(whole, now)),
                    "_agreement": fmean(same(*pair) for pair in both), "_kl": divergence(*both[0]),
                }
            )  # fmt: skip
    ending = "_took" if taken else ""
    for name in ("", "_all", "_agreement", "_kl"):
        value, n = case.after[metric + name + ending]
        assert n == len(rows) and value == pytest.approx(fmean(row[name] for row in rows), abs=1e-5), name
    for name in ("", "_all"):
        assert case.before[metric + name + ending] == (pytest.approx(fmean(row[f"before{name}"] for row in rows)), n)
    assert case.after[f"{metric}_kl{ending}"][0] > 1e-3


def test_verification(case):
    for model, found in ((case.then, case.before), (case.now, case.after)):
        rows = []
        for edit in case.edits:
            asked = f"{edit.prompt} {edit.answer}. True or false?"
            rows.append(log_p(by_hand(model, asked, "True")) > log_p(by_hand(model, asked, "False")))
        assert found["verification"] == (pytest.approx(fmean(rows)), 3)
    for edit, line in zip(case.edits, case.lines, strict=True):
        asked = f"{edit.prompt} {edit.answer}. True or false?"
        for when, model in (("before", case.then), ("after", case.now)):
            likely = [log_p(by_hand(model, asked, answer)) for answer in ("True", "False")]
            assert line[when]["verification"]["log_p"] == pytest.approx(likely, rel=1e-4)


def test_choice_is_four_way(case):
    for model, found in ((case.then, case.before), (case.now, case.after)):
        rows = []
        for edit in case.edits[1:]:  # of three targets two are others': the first, without an old answer, has three
            wrong = [str(edit.old_answer), *(other.answer for other in case.edits if other is not edit)]
            likely = [log_p(by_hand(model, edit.prompt, answer)) for answer in wrong]
            rows.append(log_p(by_hand(model, edit.prompt, edit.answer)) > max(likely))
        assert model is case.now or sorted(rows) == [False, True], "both outcomes are there"
        assert found["choice"] == (pytest.approx(fmean(rows)), 2)
    assert "choice" not in case.lines[0]["after"]
    told = case.lines[1]["after"]["choice"]
    assert told["answers"][:2] == [case.edits[1].answer, "the Rhine"] and len(set(told["answers"])) == 4
    for answer, value in zip(told["answers"], told["log_p"], strict=True):
        assert value == pytest.approx(log_p(by_hand(case.now, RIVER, answer)), rel=1e-4)


def test_negation_must_not_raise_the_target(case):
    rows, before, after = [], [], []
    for edit in case.edits:
        asked = f"It is not true that {edit.prompt}"
        then, now = (log_p(by_hand(model, asked, edit.answer)) for model in (case.then, case.now))
        rows.append(now <= then)
        before.append(torch.tensor(then).exp().item())
        after.append(torch.tensor(now).exp().item())
    assert 0 < sum(rows) < 3, "both outcomes are there"
    assert case.after["negation"] == (pytest.approx(fmean(rows)), 3) and "negation" not in case.before
    assert case.before["negation_p"] == (pytest.approx(fmean(before), rel=1e-3), 3)
    assert case.after["negation_p"] == (pytest.approx(fmean(after), rel=1e-3), 3)


def test_what_is_measured_has_a_row(case):
    assert case.after.keys() <= METRICS.keys()
    assert {name for name in METRICS if name.startswith(("negation", "choice", "verification"))} <= case.after.keys()


def test_probes_cost_one_pass_and_repeat_nothing(monkeypatch):
    """Every sequence is asked once for each state of the model, whatever compares it."""
    cfg = compose_config(tiny_words(EVERY))
    model, asked = ScoredModel(cfg, load_tiny("tiny-llama"), TOKENIZER), list[tuple[str, str]]()
    answers = model.answers
    monkeypatch.setattr(model, "answers", lambda pairs, look=None: asked.extend(pairs) or answers(pairs, look))
    edits = facts("Ostrava", "star")[1:2] + tiny_edits(count=4)
    list(Scorer(model, edits, lambda: None).scored("score", Tally()))
    assert len(asked) == len(set(asked))
    assert asked.count((RIVER, "star")) == 1, "the edited prompt serves ES and the choice"


def test_the_choice_is_the_same_at_every_call_and_another_with_another_seed():
    def chosen(*words: str) -> list[Any]:
        cfg = compose_config(tiny_words("eval.probes=[choice]", *words))
        edits = tiny_edits(count=12)
        probing = Scorer(ScoredModel(cfg, load_tiny("tiny-llama"), TOKENIZER), edits, lambda: None).probing
        return [probing.options(index, edit) for index, edit in enumerate(edits)]

    first = chosen()
    assert first == chosen() and first != chosen("seed=7")
    for edit, one in zip(tiny_edits(count=12), first, strict=True):
        answers = [answer for _, answer in one["choice"]]
        assert answers[0] == edit.answer and len({answer.casefold() for answer in answers}) == 4


def test_a_probe_that_does_not_fit_the_context_is_not_asked():
    cfg = compose_config(tiny_words(EVERY))
    model = load_tiny("tiny-llama")
    model.config.max_position_embeddings = 24
    tally = Tally()
    list(Scorer(ScoredModel(cfg, model, TOKENIZER), facts("Ostrava", "star")[1:2], lambda: None).scored("score", tally))
    assert "ES" in tally.counts and "LS_distracting" not in tally.counts


def test_a_run_with_probes(tmp_path):
    """The published numbers are those of a run without."""
    plain = lifelong_run.run(compose_config(tiny_words()), tmp_path / "plain")
    found = lifelong_run.run(compose_config(tiny_words(EVERY)), tmp_path / "probed")
    names = {entry["metric"] for entry in found["metrics"]}
    assert {"LS_distracting_agreement", "verification", "choice", "negation", "LS_kl_took"} <= names
    assert {entry["metric"] for entry in plain["metrics"]} == {
        name for name in names if not name.startswith(("LS_distr", "verif", "choice", "neg")) and "_took" not in name
    }
    for name in ("ES", "GS", "LS"):
        assert found[name] == pytest.approx(plain[name], abs=1e-6)
    for entry in found["metrics"]:
        assert entry["before"] == entry["before"] if "before" in entry else not entry["metric"].startswith("LS")


def test_the_set_of_probes_is_part_of_what_is_kept(tmp_path):
    for words in ([], ["eval.probes=[choice,negation]"], ["eval.probes=[negation,choice]"], ["eval.best=published"]):
        cache = f"eval.cache_dir={tmp_path}/cache"
        lifelong_run.run(compose_config(tiny_words(cache, *words)), tmp_path / "run")
    assert len(list((tmp_path / "cache").glob("before-*"))) == 2


# load and age


def test_load_is_edits_over_the_keys_room():
    sites = find_sites(load_tiny("tiny-llama"), SITES["tiny-llama"])
    assert load_of(24, sites) == {
        "load": 24 / sum(s.d_k for s in sites),
        "edits": 24,
        "sites": 3,
        "d_k": sum(s.d_k for s in sites),
    }


def test_retention_by_age():
    ages = Ages(2500)
    for index in range(2500):
        ages.add(index, {"tokens": 1.0 if index >= 2400 else 0.5, "all": index >= 1500})
    youngest, older, oldest = ages.told()
    assert youngest == {"from": 0, "to": 100, "n": 100, "ES": 1.0, "ES_all": 1.0}
    assert older == {"from": 100, "to": 1000, "n": 900, "ES": 0.5, "ES_all": 1.0}
    assert oldest == {"from": 1000, "to": 10000, "n": 1500, "ES": 0.5, "ES_all": 0.0}


def test_an_alias_is_right_where_something_is_generated(monkeypatch):
    """For the edited fact alone: an unrelated prompt has an answer of its own."""
    words = ["eval.generate=true", "eval.generate_sample=null", "eval.examples=0"]
    model = ScoredModel(compose_config(tiny_words(*words)), load_tiny("tiny-llama"), TOKENIZER)
    edit = Edit(0, CAPITAL, "Ostrava", None, "The sun is a", "star", aliases=("The city of Ostrau",))
    scorer = Scorer(model, [edit], lambda: None)
    monkeypatch.setattr(scorer, "_texts", lambda prompts: ["city of Ostrau" for _ in prompts])
    ((_, _, scores),) = scorer.scored("score", Tally())
    assert scores["ES"]["exact"] and scores["ES"]["contain"]
    assert not scores["LS"]["exact"] and not scores["LS"]["contain"]
