"""The benchmarks' harness, and every command at tiny sizes: the line parses, both ways agree."""

from __future__ import annotations

import json
from itertools import count

import pytest
import torch

from benchmarks import all as everything
from benchmarks import evaluate, frozen, gpu, inputs, memory, ridge, scale, step, subspace, timing, whitening
from benchmarks.timing import judge, race
from lifelong.process import start_python

CPU = torch.device("cpu")


class FakeClock:
    """A clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> FakeClock:
    monkeypatch.setattr(timing, "timer", FakeClock())
    return timing.timer


def test_race_interleaves_and_takes_medians(clock):
    called = []
    takes = {"slow": iter([99, 6, 8, 70]), "fast": iter([99, 2, 1, 2])}

    def variant(name: str) -> int:
        called.append(name)
        clock.now += next(takes[name])
        return len(called)

    ways = {name: lambda name=name: variant(name) for name in takes}
    found, given = race(ways, 3)
    assert called == ["fast", "slow", "slow", "fast", "fast", "slow", "slow", "fast"], "turns at going first"
    assert list(found.columns) == ["s", "lowest_s", "highest_s", "times_faster"]
    assert found.loc["slow"].tolist() == [8, 6, 70, 1], "the warm-up is not counted"
    assert found.loc["fast"].tolist() == [2, 1, 2, 4] and list(found.index) == ["slow", "fast"]
    assert given == {"slow": 7, "fast": 8}, "what each way gave last"


def test_race_prepares_before_every_call_outside_the_time(clock):
    numbers = count()

    def prepare(way: str) -> None:
        assert way in ("a", "b")
        next(numbers)
        clock.now += 100

    def work() -> None:
        clock.now += 1

    found, _ = race({"a": work, "b": work}, 2, warm_up=0, prepare=prepare)
    assert next(numbers) == 4
    assert (found[["lowest_s", "highest_s"]] == 1).all(axis=None)


def test_extra_memory_sees_what_was_held_and_let_go():
    extra, given = memory.extra_memory(lambda: torch.ones(2**24)[:1].tolist(), CPU)  # 64 MiB
    assert extra > 50 and given == [1.0]


def test_targets():
    judged = [judge("x", *case) for case in ((0.2, "at most", 0.25), (0.3, "at most", 0.25))]
    judged += [judge("x", *case) for case in ((1.4, "at least", 1.4), (1.39, "at least", 1.4))]
    assert [one["outcome"] for one in judged] == ["met", "MISSED", "met", "MISSED"]
    assert judged[0] == {"what": "x", "figure": 0.2, "target": "at most 0.25", "outcome": "met"}


def test_synthetic_statistics_have_the_measured_spectrum():
    torch.manual_seed(0)
    statistics = inputs.random_statistics(3, 200, CPU)
    covariance_VV = statistics.scatter_VV / (statistics.n - 200 - 1)
    above = (torch.linalg.eigvalsh(covariance_VV) > inputs.FLOOR).sum().item()
    assert statistics.whitens
    assert above == pytest.approx(inputs.SHARE_ABOVE_FLOOR * 200, abs=3)
    norms_N = inputs.random_rows(50, 64, inputs.KEY_NORM, CPU).norm(dim=1)
    assert norms_N.mean().item() == pytest.approx(inputs.KEY_NORM, rel=0.05)


def line_of(capsys: pytest.CaptureFixture[str], command: timing.Any, *words: str) -> dict:
    """Run a command in this process; what its last line says."""
    torch.manual_seed(0)
    command.main(["--quick", "--threads", "1", "--device", "cpu", *words])
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["benchmark"] == command.__name__.rpartition(".")[2]
    assert line["quick"] is True and line["threads"] == 1
    return line


def ways_of(line: dict) -> dict[str, dict]:
    """The rows of a table by their way."""
    return {row["way"]: row for row in line["table"]}


def test_ridge(capsys):
    line = line_of(capsys, ridge, "--rounds", "1")
    for at in range(0, len(line["table"]), 3):
        plain, ours, written = line["table"][at : at + 3]
        assert ours["error"] < plain["error"] < 1e-3
        assert ours["times_faster"] == pytest.approx(plain["s"] / ours["s"])
        assert (written["way"], written["d_k"]) == ("ours, written", plain["d_k"])
    assert line["share_of_error"] == pytest.approx(ours["error"] / plain["error"]) and line["targets"] == []


def test_whitening(capsys):
    line = line_of(capsys, whitening, "--rounds", "1")
    assert line["difference"] < 1e-4
    ways = ways_of(line)
    assert line["share_of_plain"] == pytest.approx(ways["ours"]["s"] / ways["plain"]["s"])


def test_subspace(capsys):
    line = line_of(capsys, subspace)
    assert 0 < line["difference"] < 1e-5 and line["above"] < line["columns"] < line["d_v"] / 4, "found by the search"
    ways = ways_of(line)
    assert line["times_faster"] == pytest.approx(ways["eigh"]["s"] / ways["subspace"]["s"])
    line = line_of(capsys, subspace, "--site", "gate_proj")
    assert line["difference"] == 0, "too much above the floor: decomposed whole"


def test_step(capsys):
    line = line_of(capsys, step, "--rounds", "2")
    assert line["shift_difference"] < 1e-3
    ways = ways_of(line)
    phases = {way.removeprefix("ours: "): row["s"] for way, row in ways.items() if way.startswith("ours: ")}
    assert {"capture", "statistics", "whitening", "ridge", "write", "cache"} == phases.keys()
    assert 0.5 * ways["ours"]["s"] < sum(phases.values()) < 1.2 * ways["ours"]["s"], "phases make up the step"
    assert 0 < line["rest_share"] < 1
    assert line["over_floor"] == pytest.approx(phases["capture"] / ways["floor"]["s"])
    assert line["times_faster"] == pytest.approx(ways["plain"]["s"] / ways["ours"]["s"])


def test_evaluate(capsys):
    line = line_of(capsys, evaluate, "--rounds", "1")
    assert line["edits"] == 8 and line["scores"].keys() == {"ES", "GS", "LS"}
    ways = ways_of(line)
    assert all(way["score_difference"] < 1e-6 for way in ways.values())
    assert line["times_faster"] == pytest.approx(ways["plain"]["s"] / ways["ours"]["s"])


def test_frozen(capsys):
    line = line_of(capsys, frozen, "--rounds", "1")
    assert line["edits"] == 8 and line["targets"] == [], "says nothing of speed"
    ways = {(row["work"], row["way"]): row for row in line["table"]}
    assert len(ways) == 6
    for (work, _), row in ways.items():
        assert row["times_faster"] == pytest.approx(ways[work, "without"]["s"] / row["s"])
        difference = row["gradient_difference" if work == "capture" else "score_difference"]
        assert difference < (1e-4 if work == "capture" else 1e-6)
    assert line["capture_times_faster"] == ways["capture", "warm"]["times_faster"]


@pytest.mark.slow
def test_memory_and_all(capsys, tmp_path):
    out = tmp_path / "made" / "all.json"
    everything.main(["--quick", "--threads", "1", "--device", "cpu", "--only", "memory", "--out", str(out)])
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert json.loads(out.read_text()) == line
    found = ways_of(line["memory"])
    assert found["ours"]["shift_norms"] == pytest.approx(found["plain"]["shift_norms"], rel=1e-4)
    assert all(way["extra_mib"] > 1 for way in found.values())


def test_all_names_what_was_missed(monkeypatch, capsys):
    targets = [judge("speed", 1.0, "at least", 2.0), judge("size", 1.0, "at most", 2.0)]
    monkeypatch.setattr(everything, "run_python", lambda *_: f"a table\n{json.dumps({'targets': targets})}")
    assert everything.main(["--only", "step"]) == {"step": {"targets": targets}}
    *_, missed, met, line = capsys.readouterr().out.splitlines()
    assert (missed.split()[-1], met.split()[-1]) == ("MISSED", "met") and json.loads(line)["step"]


def test_scale_sees_steps_from_outside(tmp_path):
    """A file that another process writes, half a line at a time."""
    metrics = tmp_path / "metrics.jsonl"
    code = f"import time; file = open({str(metrics)!r}, 'w'); parts = ['{{\"event\": \"step\", ', '\"x\": 1}}\\n'];"
    code += "[(file.write(part), file.flush(), time.sleep(0.05)) for part in parts * 3]; time.sleep(0.3)"
    with start_python("-c", code) as child:
        times = list(scale.step_times(metrics, child))
    assert len(times) == 3 and times[0] < times[1] < times[2]


def test_scale_compares_the_ends_of_a_run():
    times = [10.0 + step for step in range(91)] + [100.0 + 2 * step for step in range(1, 11)]
    found = scale.paces(times)
    assert found == {"edits": 10_100, "first_s": 10, "step_s": 1, "last_over_first": 2}


@pytest.mark.parametrize("words", [["--rounds", "0"], ["--threads", "0"], ["--device", "tpu"]])
def test_bad_options_are_refused_in_one_line(words):
    with pytest.raises(SystemExit) as caught:
        memory.main(["--quick", *words])
    assert str(caught.value).startswith("error: ") and words[0] in str(caught.value)


def test_gpu_at_a_small_shape():
    line = gpu.main(["--quick", "--device", "cpu", "--rounds", "1", "--steps", "1"])
    ridge, margin = line["table"]
    assert (ridge["model"], ridge["editor"], margin["editor"]) == ("small", "stableedit", "margin")
    assert all(ridge[name] > 0 for name in ("plain_s", "step_s", "capture_s", "eigh", "subspace", "score_s"))
    assert ridge["d_k"] == 128 and margin["edits_per_s"] > 0 and margin["20000_edits_min"] > 0
