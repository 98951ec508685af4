"""The benchmarks' harness, and every command at tiny sizes: the line parses, both ways agree."""

from __future__ import annotations

import json
from itertools import count

import pytest
import torch

from benchmarks import all as everything
from benchmarks import evaluate, frozen, memory, ridge, scale, step, synthetic, timing, whitening
from benchmarks.timing import ExtraMemory, at_least, at_most, race
from editor.frozen import ENTRY

CPU = torch.device("cpu")


class FakeClock:
    """A clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_race_interleaves_and_takes_medians():
    clock, cpu_clock, called = FakeClock(), FakeClock(), []
    takes = {"slow": iter([99, 6, 8, 70]), "fast": iter([99, 2, 1, 2])}

    def variant(name: str) -> int:
        called.append(name)
        clock.now += next(takes[name])
        cpu_clock.now += 0.5
        return len(called)

    ways = {name: lambda name=name: variant(name) for name in takes}
    found, given = race(ways, 3, CPU, clock=clock, cpu_clock=cpu_clock)
    assert called == ["fast", "slow", "slow", "fast", "fast", "slow", "slow", "fast"], "turns at going first"
    columns = ["s", "lowest_s", "highest_s", "rounds", "cpu_s"]
    assert found.loc["slow", columns].tolist() == [8, 6, 70, 3, 0.5], "the warm-up is not counted"
    assert found.loc["fast", columns].tolist() == [2, 1, 2, 3, 0.5] and list(found.index) == ["slow", "fast"]
    assert given == {"slow": 7, "fast": 8}, "what each way gave last"


def test_race_prepares_before_every_call_outside_the_time():
    clock, numbers = FakeClock(), count()

    def prepare(way: str) -> None:
        assert way in ("a", "b")
        next(numbers)
        clock.now += 100

    def work() -> None:
        clock.now += 1

    found, _ = race({"a": work, "b": work}, 2, CPU, warm_up=0, prepare=prepare, clock=clock)
    assert next(numbers) == 4
    assert (found[["lowest_s", "highest_s"]] == 1).all(axis=None)


def test_extra_memory_sees_what_was_held_and_let_go():
    memory_before = ExtraMemory(CPU)
    held = torch.ones(2**24)  # 64 MiB
    del held
    assert memory_before.peak() > 50


def test_targets():
    assert at_most(0.2, 0.25)["met"] and not at_most(0.3, 0.25)["met"]
    assert at_least(1.4, 1.4)["met"] and not at_least(1.39, 1.4)["met"]


def test_synthetic_statistics_have_the_measured_spectrum():
    torch.manual_seed(0)
    statistics = synthetic.statistics(3, 200, CPU)
    covariance_VV = statistics.scatter_VV / (statistics.n - 200 - 1)
    above = (torch.linalg.eigvalsh(covariance_VV) > synthetic.FLOOR).sum().item()
    assert statistics.whitens
    assert above == pytest.approx(synthetic.SHARE_ABOVE_FLOOR * 200, abs=3)
    norms_N = synthetic.rows(50, 64, synthetic.KEY_NORM, CPU).norm(dim=1)
    assert norms_N.mean().item() == pytest.approx(synthetic.KEY_NORM, rel=0.05)


def line_of(capsys: pytest.CaptureFixture[str], command: timing.Any, *words: str) -> dict:
    """Run a command in this process; what its last line says."""
    torch.manual_seed(0)
    command.main(["--quick", "--threads", "1", "--device", "cpu", *words])
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["benchmark"] == command.__name__.rpartition(".")[2]
    assert line["quick"] is True and line["threads"] == 1
    return line


def test_ridge(capsys):
    for case in line_of(capsys, ridge, "--rounds", "1")["table"]:
        assert case["float64_difference"] < 1e-11, "both float64 references are one"
        assert case["error"] < case["plain_error"] < 1e-3
        assert case["written_rounds"] == 1


def test_whitening(capsys):
    for case in line_of(capsys, whitening, "--rounds", "1")["table"]:
        assert case["float64_difference"] < 1e-12
        assert case["float32_difference"] < 1e-4
        assert case["share"] == pytest.approx(case["ours_s"] / case["plain_s"])


def ways_of(line: dict) -> dict[str, dict]:
    """The rows of a table by their way."""
    return {row["way"]: row for row in line["table"]}


def test_step(capsys):
    line = line_of(capsys, step, "--rounds", "2")
    assert line["shift_difference"] < 1e-3
    phases, ways = line["phases_s"], ways_of(line)
    assert {"tokenize", "capture", "statistics", "whitening", "ridge", "write", "cache", "logging"} <= phases.keys()
    assert sum(phases.values()) - phases["step"] == pytest.approx(phases["step"], rel=0.3), "phases make up the step"
    assert {"floor", "ours", "plain", "ours: capture"} <= ways.keys()
    assert ways["ours: ridge"]["s"] == phases["ridge"] and ways["ours"]["rounds"] == 2
    assert 0 < line["share_of_the_rest"] < 1
    assert line["passes_over_floor"] == pytest.approx(phases["capture"] / ways["floor"]["s"])
    assert line["plain_over_ours"] == pytest.approx(ways["plain"]["s"] / ways["ours"]["s"])


def test_evaluate(capsys):
    line = line_of(capsys, evaluate, "--rounds", "1")
    assert line["rows"] == 30 and line["edits"] == 10
    ways = ways_of(line)
    assert all(way["different_scores"] == 0 for way in ways.values())
    assert ways["ours, 64 tokens"]["positions"] >= line["tokens"], "padding is counted"
    assert ways["unsorted"]["ratio"] == pytest.approx(ways["plain"]["s"] / ways["unsorted"]["s"])


def test_frozen(capsys):
    line = line_of(capsys, frozen, "--rounds", "1")
    assert (line["edits"], line["rows"], line["frozen_layers"]) == (8, 24, 1)
    assert line["targets"] == {}, "says nothing of speed"
    entry = ENTRY.size * line["prompts"] / line["tokens"]
    assert line["bytes_per_token"] == pytest.approx(4 * 32 + entry), "states of 32 numbers, and the index"
    ways = ways_of(line)
    for name, way in ways.items():
        base = ways[f"{name.split(',')[0]}, without"]
        assert way["ratio"] == pytest.approx(base["s"] / way["s"])
        assert way.get("gradient_difference", 0) < 1e-4 and way.get("different_scores", 0) == 0


@pytest.mark.slow
def test_memory_and_all(capsys, tmp_path):
    out = tmp_path / "all.json"
    everything.main(["--quick", "--threads", "1", "--device", "cpu", "--only", "memory", "--out", str(out)])
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert json.loads(out.read_text()) == line
    found = ways_of(line["benchmarks"]["memory"])
    assert found["ours"]["shift_norms"] == pytest.approx(found["plain"]["shift_norms"], rel=1e-4)
    assert all(way["extra_mib"] > 1 for way in found.values())


def test_scale_looks_at_steps_from_outside(tmp_path):
    checkpoint = tmp_path / "checkpoints" / "00000002"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.json").write_text("x" * 500)
    # seen: two steps at once, then one by one, the last ten twice as slow as the first
    times = [(0, 0.0), (2, 20.0), *((step, 20.0 + step - 2) for step in range(3, 92))]
    times += [(step, times[-1][1] + 2 * (step - 91)) for step in range(92, 102)]
    found = scale.look(101, times, 2**30, tmp_path)
    assert (found["first_step_s"], found["step_s"], found["last_over_first"]) == (10, 1, 2)
    assert found["checkpoint_kb"] == 0.5 and found["peak_mib"] > 0


def test_summary_names_what_was_missed():
    targets = {"speed": at_least(1.0, 2.0), "size": at_most(1.0, 2.0)}
    text = everything.summary({"step": {"targets": targets}})
    assert [line.split()[-1] for line in text.splitlines()[1:]] == ["MISSED", "met"]


@pytest.mark.parametrize("words", [["--rounds", "0"], ["--threads", "0"], ["--device", "tpu"]])
def test_bad_options_are_refused_in_one_line(words):
    with pytest.raises(SystemExit) as caught:
        memory.main(["--quick", *words])
    assert str(caught.value).startswith("error: ") and words[0] in str(caught.value)


def test_out_into_a_missing_folder_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(SystemExit, match="no such folder"):
        everything.main(["--out", str(tmp_path / "none" / "all.json")])
