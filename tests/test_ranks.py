"""torchrun: two processes give bitwise the numbers of one; what is dealt out; ranks that die or differ; refusals."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from omegaconf import OmegaConf

from config.check import ConfigError
from config.compose import compose_config
from editor.journal import Journal
from editor.ridge import Shift
from editor.sites import EditSite
from files import read_json
from lifelong import gloo, ranks
from lifelong.follower import Follower, hash_of
from lifelong.job import execute
from lifelong.loop import Loop
from lifelong.ranks import Leader, RanksError
from lifelong.status import Listener
from lifelong.sweep import SweepStart
from tests.test_resume import count_calls, last_state, numbers, run
from tests.tiny import PROJECT, tiny_words

SMALL = [
    "dataset.batch_size=2",
    "checkpoint.every=1",
    "editor.tokens_per_pass=40",
    "eval.tokens_per_batch=200",
    "eval.generate=true",
]
DYING = f"""
import os, signal, sys
sys.path.insert(0, {str(PROJECT)!r})
import main
from lifelong.follower import Follower

real, calls = Follower.work, []

def dying(self, changes, work, items):
    calls.append(work.func.__name__)
    if calls.count("captured_by") == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, changes, work, items)

Follower.work = dying
main.main()
"""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As many threads as torchrun gives each process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def torchrun(cwd: Path, *words: str, script: Path = PROJECT / "main.py") -> subprocess.CompletedProcess[str]:
    """`torchrun --nproc-per-node=2 main.py WORDS`."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", str(script), *words]
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def torchrun_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of rank 0 of two."""
    for name, value in {"MASTER_ADDR": "localhost", "RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)


class InProcess:
    """Followers in this process, who are sent what gloo would send."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, others: int) -> None:
        self.followers = {rank: Follower() for rank in range(1, others + 1)}
        self.answers = dict[int, bytes]()
        self.heard: list[tuple[int, str, tuple[Any, ...]]] = []
        monkeypatch.setattr(ranks, "put", self.put)
        monkeypatch.setattr(ranks, "get", lambda rank, _: pickle.loads(self.answers.pop(rank)))
        monkeypatch.setattr("lifelong.follower.signal.signal", lambda *_: None)
        self.leader = Leader(list(self.followers))
        monkeypatch.setattr(ranks, "leader", self.leader)

    def put(self, content: Any, rank: int, _: Any) -> None:
        """Have a follower do what it is told."""
        data = gloo.pickled(content)
        name, words, options = pickle.loads(data)
        self.heard.append((rank, name, words))
        try:
            found = getattr(self.followers[rank], name)(*words, **options)
        except Exception as error:
            found = error
        self.answers[rank] = gloo.pickled(found).tobytes()

    def items(self, rank: int, work: str) -> int:
        """How many items of a work a rank was given."""
        found = [words for who, name, words in self.heard if who == rank and name == "work"]
        return sum(len(items) for _, done, items in found if done.func.__name__ == work)


def assert_same(first: Path, second: Path) -> None:
    """Bitwise the same numbers and state, but for torch's own random state, which begins anew in every process."""
    assert numbers(first) == numbers(second)
    assert (first / "edits.jsonl").read_bytes() == (second / "edits.jsonl").read_bytes()
    one, two = last_state(first), last_state(second)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one.keys() - {"rng"})


def test_two_processes_give_bitwise_the_numbers_of_one(tmp_path):
    argv = tiny_words(*SMALL)
    run(tmp_path / "one", argv)
    done = torchrun(tmp_path, *argv, f"hydra.run.dir={tmp_path / 'two'}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("written to") == 1, "rank 0 alone speaks"
    assert_same(tmp_path / "one", tmp_path / "two")
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}
    assert "2 processes" in (tmp_path / "two" / "main.log").read_text()


def test_what_is_shared_out_and_how_little_is_sent(tmp_path, monkeypatch):
    argv = tiny_words(*SMALL, editor="margin")
    argv = [word for word in argv if not word.startswith("editor.lr")]
    run(tmp_path / "one", argv)
    others = InProcess(monkeypatch, 2)
    compared = count_calls(monkeypatch, ranks, "hash_of")
    run(tmp_path / "three", argv)
    assert_same(tmp_path / "one", tmp_path / "three")
    for rank in (1, 2):
        for work in ("asked_by", "first_choices", "generated"):
            assert others.items(rank, work) > 0, work
    told = [words[0] for _, _, words in others.heard if isinstance(words[0], list)]
    changes = [change for of_sites in told for of_site in of_sites for change in of_site]
    kinds = {type(change) if isinstance(change, Shift) else change for change in changes}
    assert kinds == {Shift, "keep", "back"}, "never a whole weight"
    assert compared
    assert len({hash_of(one.here.sites) for one in others.followers.values()}) == 1


def test_a_killed_rank_ends_the_run_with_words_and_another_number_of_ranks_goes_on(tmp_path):
    argv = tiny_words(*SMALL)
    run(tmp_path / "whole", argv)
    (tmp_path / "dying.py").write_text(DYING)
    killed = tmp_path / "killed"
    done = torchrun(tmp_path, *argv, f"hydra.run.dir={killed}", script=tmp_path / "dying.py")
    assert done.returncode != 0
    assert "error: rank 1 has ended: resume=" in done.stderr
    status = read_json(killed / "status.json")
    assert status["state"] == "failed"
    assert "rank 1" in status["error"]
    lines = [json.loads(line) for line in (killed / "metrics.jsonl").read_text().splitlines()]
    assert [line["index"] for line in lines if line["event"] == "step"] == [0, 1]
    run(tmp_path / "unused", argv, f"resume={killed}")
    assert_same(tmp_path / "whole", killed)


def test_ranks_with_other_weights_end_the_run(tmp_path, monkeypatch):
    others = InProcess(monkeypatch, 1)
    real = Loop.step

    def drifting(self: Loop, *words: Any, **more: Any) -> Any:
        if self.position == 2:
            others.followers[1].here.sites[1].weight[0, 0] += 1e-6
        return real(self, *words, **more)

    monkeypatch.setattr(Loop, "step", drifting)
    monkeypatch.setattr(ranks, "EVERY", 2)
    with pytest.raises(RanksError, match="rank 1 holds other weights"):
        run(tmp_path / "run", tiny_words(*SMALL))
    assert list((tmp_path / "run" / "checkpoints").iterdir()), "the state was saved"


def test_what_fails_in_another_rank_fails_here_in_its_own_words(tmp_path, monkeypatch):
    others = InProcess(monkeypatch, 1)

    def no_memory(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(Follower, "work", no_memory)
    with pytest.raises(RuntimeError, match="lower editor.tokens_per_pass"):
        run(tmp_path / "run", tiny_words(*SMALL))
    assert not others.leader.waits, "all were heard"


def site() -> EditSite:
    torch.manual_seed(0)
    return EditSite("site", torch.nn.Linear(40, 30), masters=True)


def thin(rows: int = 2) -> Shift:
    return Shift(torch.randn(rows, 40), torch.randn(rows, 30))


@pytest.mark.parametrize(
    "does",
    [
        ["add", "take", "add", "add", "take"],
        ["add", "keep", "add", "take", "back", "add", "take", "back", "take"],
        ["keep", "add", "back", "add", "take"],
        ["keep", "take", "add", "keep", "add", "back", "take", "add", "back", "take"],
        ["keep", "add", "load", "add", "take", "back", "take"],
        ["load", "keep", "take", "add", "back", "take"],
        ["keep", *["add"] * 9, "take", "back", "take"],
    ],
)
def test_a_journal_leads_to_the_same_weight(does):
    here, there, copies = site(), Follower(), []
    there.here = ranks.Here(None, [site()], None)  # type: ignore[arg-type]
    here.journal = Journal(here.weight.nbytes)
    for what in does:
        if what == "add":
            here.add(thin())
            size = sum(one.nbytes for one in here.journal.changes if isinstance(one, Shift))
            assert size < here.weight.nbytes
        elif what == "keep":
            copies.append(here.snapshot())
        elif what == "back":
            here.restore(copies[-1])
        elif what == "load":
            here.restore((torch.randn(30, 40), torch.randn(30, 40)))
        else:
            sent = pickle.loads(gloo.pickled([here.journal.take((here.weight, here.master))]))
            assert there.weights(sent) == hash_of([here])


def test_messages_hold_no_more_than_the_view():
    rows = torch.randn(1000, 10).split(10)
    data = gloo.pickled(list(rows[:3]))
    assert len(data) < 4 * 3 * 100 * 2 + 2000
    assert all(map(torch.equal, pickle.loads(data), rows))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("model.device_map=auto", "model.device_map=auto: under torchrun"),
        ("model.frozen_cache_dir=states", "model.frozen_cache_dir=states: which process"),
        ("model_device=cuda:1", "model_device=cuda:1: under torchrun process N takes GPU N"),
        ("inspect=true", "inspect=true: is done by one process"),
        ("tune=true", "tune=true: is done by one process"),
    ],
)
def test_refusals(word, said, tmp_path, torchrun_says):
    with pytest.raises(ConfigError, match=said):
        execute(compose_config(tiny_words(word)), tmp_path / "run", [])
    assert not (tmp_path / "run").exists()


def test_a_sweep_is_refused(torchrun_says):
    with pytest.raises(SystemExit, match=r"error: a sweep \(-m\) is done by one process"):
        SweepStart().on_multirun_start(OmegaConf.create())


def test_without_torchrun_nothing_is_initialized(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    run(tmp_path / "run", tiny_words("num_seq=1"))
    assert ranks.leader is None
    assert not dist.is_initialized()


def test_who_takes_over_a_signal_keeps_it():
    before = signal.getsignal(signal.SIGTERM)
    with Listener(lambda *_: None):
        assert "rank 3 does not answer" in str(ranks.gone(3, "Timed out waiting 600000ms"))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    signal.signal(signal.SIGTERM, before)
