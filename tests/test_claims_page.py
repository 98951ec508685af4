"""The claims' verdicts on made-up runs both ways, the page and the README's headline."""

from __future__ import annotations

import re

import pytest

from claims.__main__ import page_path
from claims.evidence import Estimate, Evidence
from claims.page import BEGIN, END, Page
from claims.plan import FULL, PARTS, SHORT, settings
from claims.runner import Runner
from claims.verdicts import HELD, NOT_HELD, NOT_RUN, OPEN, PAIRS, dominance, gains, judge
from config.check import ConfigError
from tests.claims_runs import long_run, made_up, noted, verdict
from tests.tiny import PROJECT

# the verdicts


@pytest.mark.parametrize("part", PARTS)
def test_without_runs_nothing_is_judged(part, tmp_path):
    assert verdict(part, tmp_path) == NOT_RUN


@pytest.mark.parametrize(("raw", "outcome"), [(0.1, HELD), (0.48, NOT_HELD), (0.25, OPEN)])
def test_normalization(raw, outcome, tmp_path):
    long_run(tmp_path, "stableedit")
    long_run(tmp_path, "raw", {"ES": raw})
    assert verdict("normalization", tmp_path) == outcome


def test_a_run_that_ended_in_nonsense_has_collapsed(tmp_path):
    long_run(tmp_path, "stableedit")
    long_run(tmp_path, "raw", failed="NumericsError: step 3: the loss is nan")
    assert verdict("normalization", tmp_path) == HELD
    long_run(tmp_path, "raw", failed="OSError: no space left")
    assert verdict("normalization", tmp_path) == NOT_RUN, "a full disk is no collapse"


@pytest.mark.parametrize(("rise", "outcome"), [(0.3, HELD), (-0.3, NOT_HELD), (0.0, OPEN)])
def test_cumulative(rise, outcome, tmp_path):
    for seed in range(2):
        long_run(tmp_path, "stableedit", seed=seed, immediate=lambda x: 0.5 + rise * x)
    assert verdict("cumulative", tmp_path) == outcome


@pytest.mark.parametrize(
    ("none", "middle", "outcome"), [(0.3, 0.4, HELD), (0.7, 0.4, NOT_HELD), (0.3, 0.7, NOT_HELD), (0.5, 0.5, OPEN)]
)
def test_warmup(none, middle, outcome, tmp_path):
    long_run(tmp_path, "stableedit")
    long_run(tmp_path, "warmup_none", {"ES": none})
    long_run(tmp_path, "warmup_middle", {"ES": middle})
    assert verdict("warmup", tmp_path) == outcome


@pytest.mark.parametrize(("diagonal", "outcome"), [(0.3, HELD), (0.7, NOT_HELD), (0.5, OPEN)])
def test_whitening(diagonal, outcome, tmp_path):
    long_run(tmp_path, "stableedit")
    long_run(tmp_path, "diagonal", {"ES": diagonal})
    assert verdict("whitening", tmp_path) == outcome


@pytest.mark.parametrize(
    ("growth", "turn", "outcome"), [(0, -0.2, HELD), (5, -0.2, NOT_HELD), (0, 0.2, NOT_HELD), (0, 0.0, OPEN)]
)
def test_shifts(growth, turn, outcome, tmp_path):
    long_run(tmp_path, "stableedit", norm=lambda x: 1 + growth * x, cosine=lambda x: 0.4 + turn * x)
    assert verdict("shifts", tmp_path) == outcome


def test_editors(tmp_path):
    long_run(tmp_path, "stableedit")
    for name in PARTS["editors"].settings[1:]:
        assert verdict("editors", tmp_path) == (NOT_RUN if name == "ultraedit" else OPEN), "some are missing"
        long_run(tmp_path, name, {"ES": 0.3})
    assert verdict("editors", tmp_path) == HELD
    long_run(tmp_path, "malmen", {"ES": 0.7})
    assert verdict("editors", tmp_path) == NOT_HELD


def test_dominance():
    up, down = Estimate(0.1, 0.05, 0.15, 9), Estimate(-0.1, -0.15, -0.05, 9)
    same, little = Estimate(0.0, -0.1, 0.1, 9), Estimate(-0.01, -0.1, 0.1, 9)
    assert dominance({"ES": up, "GS": up, "LS": same}) == HELD
    assert dominance({"ES": up, "GS": up, "LS": little}) == OPEN
    assert dominance({"ES": up, "GS": same, "LS": same}) == NOT_HELD
    assert dominance({"ES": up, "GS": up, "LS": down}) == NOT_HELD
    assert dominance({}) == NOT_HELD


@pytest.mark.parametrize(("part", "worse", "better"), [
    ("beyond", "floor_1e-2", "floor_1e-3"), ("precision", "stableedit", "bf16_masters"),
])  # fmt: skip
def test_beyond(part, worse, better, tmp_path):
    long_run(tmp_path, PARTS[part].settings[0])
    long_run(tmp_path, worse, {"ES": 0.3})
    assert verdict(part, tmp_path) == NOT_HELD
    long_run(tmp_path, better, {"ES": 0.8, "GS": 0.5, "LS": 0.35, "KS": 0.7})
    found = judge(part, Evidence(tmp_path))
    assert found.outcome == HELD and f"{better} dominates" in found.sentence and f"{worse} does not" in found.sentence


def test_metrics_of_few_common_edits_are_compared_by_their_means(tmp_path, monkeypatch):
    long_run(tmp_path, "stableedit")
    long_run(tmp_path, "floor_1e-2", {"ES": 0.8})
    evidence = Evidence(tmp_path)
    whole = gains(evidence, "floor_1e-2", "stableedit")
    assert whole["ES_exact"].n == 200 and set(whole) == {"ES", "GS", "LS", "ES_exact", "GS_exact", "KS"}
    few = evidence.scores("floor_1e-2").query(f"edit < {5 * (PAIRS - 1)}")
    monkeypatch.setattr(evidence, "_scores", {**evidence._scores, "floor_1e-2": few})
    found = gains(evidence, "floor_1e-2", "stableedit")
    mine, theirs = evidence.pooled("floor_1e-2", "ES"), evidence.pooled("stableedit", "ES")
    assert found["ES"].value == pytest.approx(mine.value - theirs.value)
    assert found["ES"].high - found["ES"].low > 2 * (whole["ES"].high - whole["ES"].low)


# the page


def test_page_without_runs_names_every_part(tmp_path):
    text = Page(noted(tmp_path)).write(tmp_path / "RESULTS.md").read_text()
    assert text.count("**Not run.**") == len(PARTS) and "![" not in text
    assert not (tmp_path / "figures").exists()


def test_page_with_runs(tmp_path):
    runner = noted(tmp_path)
    for name in settings(SHORT):
        if name != "mend":
            long_run(tmp_path, name, {"ES": 0.123456})
    for job in runner.sweep(settings(SHORT)["stableedit"]):
        made_up(tmp_path, job)
    text = Page(runner).write(tmp_path / "page" / "RESULTS.md").read_text()
    assert "**short run**" in text and "a <processor>" in text and "python 3" in text
    assert "| warm-up: start |" in text and "0.123 (0.085 to 0.176)" in text and "Not run: mend" in text
    assert "| 0.500, 0.450 (14) |" in text and "| warm-up: start | 0 | 200 | 0.123 (" in text
    assert str(tmp_path) not in text, "commands name no folder of this machine"
    assert "| StableEdit | editor.lr=0.0003 | grid of two | lr_0.0003 +0.2000; lr_0.001 +0.2000 |" in text
    assert (
        "Differences against published:" in text and "| floor 1e-3 of the largest | +0.000 (+0.000 to +0.000) |" in text
    )
    for part in PARTS.keys() - {"precision"}:
        figure = tmp_path / "page" / "figures" / f"{part}.svg"
        assert figure.read_text().startswith("<svg") and figure.stat().st_size < 80_000, part
        assert f"(figures/{part}.svg)" in text and f'<a id="{part}">' in text
    first = text, (tmp_path / "page" / "figures" / "editors.svg").read_bytes()
    again = Page(runner).write(tmp_path / "page" / "RESULTS.md").read_text()
    assert first == (again, (tmp_path / "page" / "figures" / "editors.svg").read_bytes()), "the same from the same runs"


def test_page_of_another_scale_or_of_nothing_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="nothing was run there"):
        Page(Runner(SHORT, tmp_path))
    noted(tmp_path, FULL)
    with pytest.raises(ConfigError, match="holds a full run"):
        Page(Runner(SHORT, tmp_path))


def test_readme_takes_its_headline_from_the_runs(tmp_path):
    runner, page, file = noted(tmp_path / "out"), tmp_path / "docs" / "RESULTS.md", tmp_path / "README.md"
    for name in ("stableedit", "ultraedit"):
        long_run(runner.out, name, {"ES": 0.123456})
    found = Page(runner)
    found.write(page)
    file.write_text("no markers")
    with pytest.raises(ConfigError, match="lacks the lines"):
        found.update(file, page)
    file.write_text(f"above\n{BEGIN}\nold\n{END}\nbelow\n")
    found.update(file, page)
    text = file.read_text()
    assert text.startswith("above\n") and text.endswith(f"{END}\nbelow\n") and "old" not in text
    assert "| StableEdit | 0.123 (" in text and "(docs/figures/editors.svg)" in text and "RLEdit" not in text
    assert re.search(r"not decided [^;]*\[editors\]\(docs/RESULTS.md#editors\)", text)
    found.update(file, page)
    assert file.read_text() == text, "the same from the same runs"


def test_readme_has_its_markers():
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1


def test_only_the_full_run_in_its_place_writes_the_committed_page(tmp_path):
    assert page_path(FULL, PROJECT / "outputs" / "claims") == PROJECT / "docs" / "RESULTS.md"
    assert page_path(SHORT, PROJECT / "outputs" / "claims") == PROJECT / "outputs" / "claims" / "RESULTS.md"
    assert page_path(FULL, tmp_path) == tmp_path / "RESULTS.md"
