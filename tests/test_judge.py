"""The LLM judge against servers of our own: verdicts, failures of every kind, and the key that stands nowhere."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import fmean
from typing import Any

import pytest

from config.check import ConfigError, check_override_names
from config.compose import compose_config
from config.judging import check_judge
from config.schema import EvalConfig
from data.base import Edit
from lifelong import judge as judges
from lifelong import run as lifelong_run
from lifelong.judge import TEMPLATE, Judge, JudgeError, reach_judge, verdict
from lifelong.judging import Judging, agreed
from lifelong.score import score
from report.metrics import Tally
from report.terminal import judge_remark
from tests.tiny import MODELS, run_main, tiny_words

SECRET = "sk-quite-secret"
Answer = Callable[[dict[str, Any]], tuple[int, str]]


def said(content: str) -> tuple[int, str]:
    """A reply as of chat completions."""
    return 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]})


def same(question: str) -> str:
    """The judge of these tests: yes where the answer begins as the target does, or where anything is right."""
    lines = dict(line.split(": ", 1) for line in question.splitlines() if ": " in line)
    return "yes" if lines["Answer to check"][:1] == lines["Reference answer"][:1] else "no"


class Server:
    """A server of our own: `answer` says what comes; what was asked is in `asked`, with the headers."""

    def __init__(self) -> None:
        self.asked: list[tuple[dict[str, Any], dict[str, str]]] = []
        self.answer: Answer = lambda body: said(same(body["messages"][0]["content"]))
        self.headers: dict[str, str] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append((body, dict(self.headers) | {"path": self.path}))
                status, text = outer.answer(body)
                self.send_response(status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def questions(self) -> list[str]:
        return [body["messages"][0]["content"] for body, _ in self.asked]


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(judges, "PAUSE", 0.0)
    monkeypatch.setenv("JUDGE_API_KEY", f" {SECRET}\n")
    found = Server()
    yield found
    found.http.shutdown()
    found.http.server_close()


def config(server: Server, *words: str):
    more = ["eval.generate=true", "eval.generate_sample=5", "eval.max_new_tokens=4", f"eval.judge_url={server.url}"]
    return compose_config(tiny_words(*more, *words))


def files_of(folder) -> str:
    return "".join(path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())


def test_verdicts_become_metrics(server, tmp_path, capsys, caplog):
    results = lifelong_run.run(config(server, "eval.judge_model=small"), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "judge.jsonl").read_text().splitlines()]
    assert len(lines) == 5 * 2 * 2, "five edits, ES and GS, before and after"
    for line in lines:
        assert line["question"] == TEMPLATE.format(**{name: line[name] for name in ("prompt", "target", "answer")})
        assert line["reply"] == same(line["question"]) and line["verdict"] is (line["reply"] == "yes")
    edits = {one["index"]: one for one in map(json.loads, (tmp_path / "edits.jsonl").read_text().splitlines())}
    for line in lines:
        found = edits[line["index"]][line["when"]][line["metric"]]
        assert (line["answer"], line["exact"]) == (found["generated"], found["exact"])
    rows = {row["metric"]: row for row in results["metrics"]}
    for metric in ("ES", "GS"):
        for when, name in (("before", "before"), ("after", "value")):
            verdicts = [one["verdict"] for one in lines if (one["metric"], one["when"]) == (metric, when)]
            assert rows[f"{metric}_judge"][name] == pytest.approx(fmean(verdicts))
        assert rows[f"{metric}_judge"]["n"] == 5 and "judge" in rows[f"{metric}_judge"]["protocol"]
    agreement = fmean(line["verdict"] == line["exact"] for line in lines)
    assert results["judge"]["agreement"] == pytest.approx(agreement) and results["judge"]["n"] == 20
    printed = capsys.readouterr().out
    assert "ES_judge" in printed and f"judge: agrees with exact match on {agreement:.1%} of 20 answers" in printed
    assert len(set(server.questions())) == len(server.questions()), "nothing is asked twice"
    for body, headers in server.asked:
        assert (body["temperature"], body["model"]) == (0, "small")
        assert headers["Authorization"] == f"Bearer {SECRET}" and headers["path"] == "/v1/chat/completions"
    assert SECRET not in files_of(tmp_path) + printed + caplog.text


def test_judging_moves_no_other_number(server, tmp_path):
    words = [f"eval.cache_dir={tmp_path / 'kept'}"]
    judged = lifelong_run.run(config(server, *words), tmp_path / "a")
    plain = lifelong_run.run(config(server, *words, "eval.judge_url=null"), tmp_path / "b")
    assert [row for row in judged["metrics"] if "judge" not in row["metric"]] == plain["metrics"]
    assert "judge" not in plain and not (tmp_path / "b" / "judge.jsonl").exists()
    assert len(list((tmp_path / "kept").glob("before-*"))) == 1, "what is kept before editing serves both"


def test_a_scoring_is_judged_too(server, tmp_path):
    cfg = config(server, f"score={MODELS / 'tiny-llama'}")
    results = score(cfg, tmp_path)
    assert {"ES_judge", "GS_judge"} <= {row["metric"] for row in results["metrics"]}
    assert results["judge"]["n"] == 10


FAILURES: dict[str, tuple[Answer, str]] = {
    "status": (lambda _: (500, f"out of memory, key {SECRET}"), r"HTTP 500 out of memory, key \*\*\*"),
    "unauthorized": (lambda _: (401, f"wrong key {SECRET}"), r"HTTP 401 wrong key \*\*\*"),
    "garbage": (lambda _: (200, "<html>" + "x" * 5000), "no reply as of chat completions"),
    "nested": (lambda _: (200, "[" * 100_000), "no reply as of chat completions"),
    "other JSON": (lambda _: (200, '{"choices": []}'), "no reply as of chat completions"),
    "no text": (lambda _: (200, '{"choices": [{"message": {"content": null}}]}'), "the content is NoneType"),
    "hanging": (lambda _: (time.sleep(1.0), said("yes"))[1], "timed out"),
    "endless": (lambda _: (200, " " * 2**21), "too long or too slow"),
    "redirect": (lambda _: (302, ""), "HTTP 302"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failing_server_is_refused_at_the_start(server, tmp_path, monkeypatch, name):
    server.answer, words = FAILURES[name]
    monkeypatch.setattr(judges, "TIMEOUT", 0.3 if name == "hanging" else 10.0)
    server.headers = {"Location": server.url} if name == "redirect" else {}
    monkeypatch.setattr(lifelong_run, "open_session", None)  # a model that loads would be an error of another kind
    with pytest.raises(ConfigError, match=rf"eval\.judge_url={server.url}: .*{words}") as caught:
        lifelong_run.run(config(server), tmp_path)
    assert SECRET not in str(caught.value) and "\n" not in str(caught.value)
    assert len(server.asked) == 1, "a redirection is not followed, nothing is asked again"


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_in_the_middle_loses_nothing(server, tmp_path, monkeypatch, caplog, name):
    failing, words = FAILURES[name]
    monkeypatch.setattr(judges, "TIMEOUT", 0.3 if name == "hanging" else 10.0)
    server.headers = {"Location": server.url} if name == "redirect" else {}
    judging = Judging(EvalConfig(judge_url=server.url))
    edits = [Edit(row, f"p {row}", f"t {row}", None, None, None) for row in range(20)]
    for edit in edits:
        judging.add(edit.row, edit, {"before": None, "after": {"ES": {"generated": "t", "exact": False}}})
    good, lock = server.answer, threading.Lock()

    def answer(body: dict[str, Any]) -> tuple[int, str]:
        with lock:
            late = len(server.asked) > 10
        return failing(body) if late else good(body)

    server.answer, now = answer, Tally()
    judging.finish(tmp_path / "judge.jsonl", {"before": Tally(), "after": now}, lambda: None)
    assert now.means() == {} and "ES_judge and GS_judge are left out" in caplog.text
    assert 8 <= len((tmp_path / "judge.jsonl").read_text().splitlines()) < 20
    assert words.replace("\\", "") in judging.summary["failed"] and SECRET not in caplog.text
    assert judge_remark(judging.summary)[0].startswith("judge: left out (")


def test_a_run_whose_judge_dies_ends_with_all_other_numbers(server, tmp_path, monkeypatch):
    good = server.answer
    server.answer = lambda body: good(body) if len(server.asked) == 1 else (503, "busy")
    results = lifelong_run.run(config(server), tmp_path)
    names = {row["metric"] for row in results["metrics"]}
    assert {"ES", "ES_exact", "GS_exact"} <= names and not {"ES_judge", "GS_judge"} & names
    assert results["judge"]["failed"] == "HTTP 503 busy" and json.loads((tmp_path / "results.json").read_text())


def test_tries_are_limited_and_mend_what_passes(server):
    answers = iter([(503, "busy"), (429, "wait"), said("Yes.")])
    server.answer = lambda _: next(answers)
    assert Judge(server.url).reply("?") == "Yes." and len(server.asked) == 3
    server.answer = lambda _: (500, "")
    with pytest.raises(JudgeError, match="^HTTP 500$"):
        Judge(server.url).reply("?")
    assert len(server.asked) == 6
    server.answer = lambda _: (404, "no such model")
    with pytest.raises(JudgeError, match="HTTP 404 no such model"):
        Judge(server.url).reply("?")
    assert len(server.asked) == 7, "another try mends no 404"


def test_a_slow_trickle_is_a_timeout(server, monkeypatch):
    monkeypatch.setattr(judges, "TIMEOUT", 0.5)

    class Trickle:
        def read1(self, _: int) -> bytes:
            time.sleep(0.2)
            return b" "

    with pytest.raises(TimeoutError):
        judges._read(Trickle())


def test_the_command_refuses_a_server_that_is_down(server, tmp_path):
    server.http.shutdown()
    server.http.server_close()
    words = tiny_words("eval.generate=true", f"eval.judge_url={server.url}", "hydra.run.dir=run")
    done = run_main(*words, cwd=tmp_path)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode != 0 and f"eval.judge_url={server.url}: no judge answers there" in line
    assert "refused" in line and "Traceback" not in done.stderr


def test_a_judge_that_says_neither_is_refused_and_later_left_out(server, tmp_path):
    server.answer = lambda _: said("<think> Let me")
    with pytest.raises(ConfigError, match="replies '<think> Let me', neither yes nor no"):
        reach_judge(EvalConfig(judge_url=server.url))
    server.answer = lambda body: said("maybe" if "p 1" in body["messages"][0]["content"] else "**Yes**, it does")
    judging, now = Judging(EvalConfig(judge_url=server.url)), Tally()
    for row in range(3):
        edit = Edit(row, f"p {row}", "t", "again?", None, None)
        found = {"generated": "t", "exact": row == 0}
        judging.add(row, edit, {"after": {"ES": found, "GS": found}})
    judging.finish(tmp_path / "judge.jsonl", {"before": Tally(), "after": now}, lambda: None)
    assert now.means() == {"ES_judge": 1.0, "GS_judge": 1.0} and now.counts == {"ES_judge": 2, "GS_judge": 3}
    assert judging.summary["unclear"] == 1 and judging.summary["n"] == 5
    assert "1 replies were neither yes nor no" in judge_remark(judging.summary)[0]


def test_several_prompts_are_averaged_within_the_edit_and_aliases_are_named(server, tmp_path):
    server.answer = lambda body: said("yes" if "g2" in body["messages"][0]["content"] else "no")
    edit = Edit(0, "p", "t", "g1", None, None, aliases=("u",), more=(("rephrase", "g2", "t"),))
    judging, now = Judging(EvalConfig(judge_url=server.url)), Tally()
    one = {"generated": "a", "exact": False}
    judging.add(0, edit, {"after": {"ES": one, "GS": {"exact": 0.0, "each": [one, one]}}})
    judging.finish(tmp_path / "judge.jsonl", {"before": Tally(), "after": now}, lambda: None)
    assert now.means() == {"ES_judge": 0.0, "GS_judge": 0.5} and now.counts["GS_judge"] == 1
    assert all("Reference answer: t, or: u\n" in question for question in server.questions())


def test_agreement_by_hand():
    pairs = [(True, True), (True, False), (False, False), (False, True), (True, False), (None, True)]
    found = agreed([{"verdict": said, "exact": exact} for said, exact in pairs])
    assert found == {"n": 5, "unclear": 1, "agreement": 0.4, "yes_not_exact": 2, "no_but_exact": 1}


@pytest.mark.parametrize(
    ("reply", "wanted"),
    [("yes", True), (" Yes.", True), ("NO", False), ("**no**", False), ("", None), ("yesterday", None), ("?!", None)],
)
def test_the_first_word_is_the_verdict(reply, wanted):
    assert verdict(reply) is wanted


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"generate": False}, "it needs eval.generate=true"),
        ({"generate_sample": 0}, "it needs eval.generate_sample above 0"),
        ({"judge_url": ""}, "eval.judge_url=: it must be http://HOST:PORT/v1"),
        ({"judge_url": "localhost:8000"}, "it must be http"),
        ({"judge_url": "file:///etc/passwd"}, "it must be http"),
        ({"judge_url": "http://a:port/v1"}, "it must be http"),
        ({"judge_url": "http://[::1/v1"}, "it must be http"),
        ({"judge_url": "http://a b/v1"}, "it must be http"),
        ({"judge_url": "http://\u00e4.de/v1"}, "it must be http"),
        ({"judge_url": None, "judge_model": "m"}, "eval.judge_model=m: needs eval.judge_url"),
        ({"judge_model": " "}, "must name a model"),
    ],
)
def test_bad_keys_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        check_judge(EvalConfig(**{"judge_url": "http://127.0.0.1:1/v1", "generate": True} | changes))


@pytest.mark.parametrize("url", [f"http://me:{SECRET}@host/v1", f"http://host/v1?key={SECRET}", f"http://h/#{SECRET}"])
def test_a_secret_in_the_address_is_refused_and_not_shown(url):
    with pytest.raises(ConfigError, match="a password or key belongs into JUDGE_API_KEY") as caught:
        check_judge(EvalConfig(judge_url=url, generate=True))
    assert SECRET not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        check_override_names([f"eval.judge_url={url}"])  # before Hydra writes the words down
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("key", ["a\nb", "schl\u00fcssel"])
def test_a_key_that_no_header_takes_is_not_shown(server, monkeypatch, key):
    monkeypatch.setenv("JUDGE_API_KEY", key)
    with pytest.raises(ConfigError, match="JUDGE_API_KEY: ") as caught:
        reach_judge(EvalConfig(judge_url=server.url))
    assert key not in str(caught.value) and not server.asked
