"""data.prepare: fetching against a server that breaks in every way, and checking record files."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from data import prepare
from data.fetch import BASE_URL, MANIFEST, TRIES, FetchError, HopelessError, PublishedFile, fetch, published

FACTS_FILES = ("data/facts/facts_train.jsonl.xz", "data/facts/facts_eval.jsonl.xz")
CONTENT = os.urandom(3_000_000)
FILE = PublishedFile("data/raw/zsre/zsre_train.json", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
ZSRE = {"src": "Born in", "ans": "Bergen", "rephrase": "The birthplace", "loc": "what is", "loc_ans": "cold"}


@dataclass
class Site:
    """A server's files and faults; `asked` is the Range header of every request, in order."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    shift: int = 0
    cuts: list[int] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    sized: bool = True
    going: threading.Event = field(default_factory=threading.Event)
    asked: list[str | None] = field(default_factory=list)


@pytest.fixture
def site() -> Iterator[Site]:
    """A site that has FILE; an entry of `cuts` ends a reply early, one of `codes` refuses it."""
    site = Site(files={f"/{FILE.path}": CONTENT})
    site.going.set()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append(self.headers["Range"])
            site.going.wait(60)
            body = site.files.get(self.path)
            if site.codes or body is None:
                self.send_error(site.codes.pop(0) if site.codes else 404)
                return
            start = int(re.findall(r"\d+", self.headers["Range"] or "0")[0]) if site.ranges else 0
            if start and start >= len(body):
                self.send_error(416)
                return
            first = max(start - site.shift, 0)
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
            if site.sized:
                self.send_header("Content-Length", str(len(body) - first))
            self.end_headers()
            self.wfile.write(body[first:][: site.cuts.pop(0) if site.cuts else None])

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


def bring(site: Site, root: Path, file: PublishedFile = FILE) -> str:
    return fetch(file, root, site.url, wait=lambda seconds: None)


def failure(site: Site, root: Path, file: PublishedFile = FILE) -> FetchError:
    with pytest.raises(FetchError) as caught:
        bring(site, root, file)
    assert f"{site.url}/{file.path}" in str(caught.value)
    return caught.value


def part(root: Path, content: bytes) -> None:
    """Leave `content` as what an earlier run got."""
    path = (root / FILE.path).with_name("zsre_train.json.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def complete(root: Path) -> bool:
    """Whether the file is there, right, and alone."""
    path = root / FILE.path
    return path.read_bytes() == CONTENT and left(root) == [path.name]


def left(root: Path) -> list[str]:
    """What lies in the folder of FILE, beside the lock."""
    return [name for name in os.listdir((root / FILE.path).parent) if not name.endswith(".lock")]


def test_fetch_and_skip_what_is_there(site: Site, tmp_path: Path) -> None:
    assert bring(site, tmp_path) == "fetched"
    assert complete(tmp_path)
    assert bring(site, tmp_path) == "already complete"
    assert site.asked == [None]


def test_two_at_once_the_second_waits_and_says_so(site: Site, tmp_path: Path, capsys) -> None:
    site.going.clear()
    err, until = "", time.monotonic() + 20
    with ThreadPoolExecutor() as pool:
        first, second = (pool.submit(bring, site, tmp_path) for _ in range(2))
        while "waiting" not in err and time.monotonic() < until and len(site.asked) < 2:
            time.sleep(0.01)
            err += capsys.readouterr().err
        site.going.set()
        assert sorted([first.result(), second.result()]) == ["already complete", "fetched"]
    assert f"{(tmp_path / FILE.path)}: another command is fetching it; waiting for that\n" in err
    assert site.asked == [None] and complete(tmp_path)


def test_a_wrong_file_in_its_place_is_replaced(site: Site, tmp_path: Path) -> None:
    target = tmp_path / FILE.path
    target.parent.mkdir(parents=True)
    for wrong in (b"short", bytes(len(CONTENT))):
        target.write_bytes(wrong)
        assert bring(site, tmp_path) == "fetched"
        assert complete(tmp_path)


def test_interrupted_download_goes_on_where_it_stopped(site: Site, tmp_path: Path) -> None:
    site.cuts = [1_000_000, 500_000]
    assert bring(site, tmp_path) == "fetched"
    assert site.asked == [None, "bytes=1000000-", "bytes=1500000-"]
    assert complete(tmp_path)


def test_part_of_an_earlier_run_is_used(site: Site, tmp_path: Path) -> None:
    part(tmp_path, CONTENT[:2_000_000])
    bring(site, tmp_path)
    assert site.asked == ["bytes=2000000-"]
    assert complete(tmp_path)


def test_complete_part_needs_no_request(site: Site, tmp_path: Path) -> None:
    part(tmp_path, CONTENT)
    assert bring(site, tmp_path) == "fetched"
    assert site.asked == []
    assert complete(tmp_path)


def test_server_without_range_starts_again(site: Site, tmp_path: Path) -> None:
    site.ranges = False
    part(tmp_path, CONTENT[:2_000_000])
    bring(site, tmp_path)
    assert site.asked == ["bytes=2000000-"]
    assert complete(tmp_path)


def test_server_that_sends_another_range_is_asked_for_the_whole(site: Site, tmp_path: Path) -> None:
    site.shift = 5
    part(tmp_path, CONTENT[:2_000_000])
    bring(site, tmp_path)
    assert site.asked == ["bytes=2000000-", None]
    assert complete(tmp_path)


@pytest.mark.parametrize("wrong", [CONTENT + b"x", bytes(len(CONTENT)), bytes(1000)])
def test_wrong_part_is_thrown_away_and_fetched_anew(site: Site, tmp_path: Path, wrong: bytes) -> None:
    part(tmp_path, wrong)
    assert bring(site, tmp_path) == "fetched"
    assert site.asked[-1] is None
    assert complete(tmp_path)


def test_wrong_sha_names_both_after_a_second_try(site: Site, tmp_path: Path) -> None:
    other = bytes(len(CONTENT))
    site.files[f"/{FILE.path}"] = other
    message = str(failure(site, tmp_path))
    assert hashlib.sha256(other).hexdigest() in message
    assert FILE.sha256 in message
    assert site.asked == [None, None]
    assert left(tmp_path) == []


@pytest.mark.parametrize("size", [1000, len(CONTENT) + 1])
def test_size_mismatch_names_both(site: Site, tmp_path: Path, size: int) -> None:
    site.files[f"/{FILE.path}"] = bytes(size)
    message = str(failure(site, tmp_path))
    assert f"size mismatch: the server has {size} bytes, the manifest says 3000000" in message
    assert len(site.asked) == 1


def test_unsized_reply_that_is_too_long(site: Site, tmp_path: Path) -> None:
    site.sized = False
    site.files[f"/{FILE.path}"] = CONTENT * 2
    assert "size mismatch: more came than the 3000000 bytes expected" in str(failure(site, tmp_path))


def test_unsized_reply_that_is_too_short(site: Site, tmp_path: Path) -> None:
    site.sized = False
    site.files[f"/{FILE.path}"] = CONTENT[:1000]
    assert f"(tried {TRIES} times)" in str(failure(site, tmp_path))


def test_not_found_is_said_at_once_with_what_to_do(site: Site, tmp_path: Path) -> None:
    site.files.clear()
    error = failure(site, tmp_path)
    assert "HTTP 404 Not Found" in str(error)
    assert f"by hand: fetch that address and save it as {(tmp_path / FILE.path)} (3000000 bytes" in str(error)
    assert not isinstance(error, HopelessError)
    assert len(site.asked) == 1


def test_passing_trouble_is_waited_out(site: Site, tmp_path: Path) -> None:
    site.codes = [503, 429, 500]
    waits: list[float] = []
    assert fetch(FILE, tmp_path, site.url, wait=waits.append) == "fetched"
    assert waits == [1.0, 2.0, 4.0]


def test_lasting_trouble_is_given_up_and_the_part_kept(site: Site, tmp_path: Path) -> None:
    part(tmp_path, CONTENT[:7])
    site.codes = [503] * 99
    error = failure(site, tmp_path)
    assert f"HTTP 503 Service Unavailable (tried {TRIES} times)" in str(error)
    assert (tmp_path / FILE.path).with_name("zsre_train.json.part").read_bytes() == CONTENT[:7]


def test_no_network(tmp_path: Path) -> None:
    error = failure(Site(url="http://127.0.0.1:9"), tmp_path)
    assert "is there a network?" in str(error)
    assert "by hand: " in str(error)
    assert isinstance(error, HopelessError)


def test_full_disk(site: Site, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    part(tmp_path, b"")
    path = (tmp_path / FILE.path).with_name("zsre_train.json.part")
    path.unlink()
    path.symlink_to("/dev/full")
    error = failure(site, tmp_path)
    assert "the disk is full: 3000000 bytes are still to come" in str(error)
    assert isinstance(error, HopelessError)


def test_folder_that_cannot_be_made(site: Site, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    assert "cannot write" in str(failure(site, tmp_path))


def test_base_url_is_http(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="base URL 'file:///etc': must begin with http"):
        fetch(FILE, tmp_path, "file:///etc")


def test_manifest() -> None:
    manifest = json.loads(MANIFEST.read_text())
    assert BASE_URL.removeprefix("https://") in manifest["source"]
    counts = {name: len(published(name)) for name in ("zsre", "fever", "wikibigedit", "ultraeditbench", "knowns")}
    assert counts == {"zsre": 3, "fever": 3, "wikibigedit": 3, "ultraeditbench": 2, "knowns": 1}
    assert len(published()) == len(manifest["files"]) == 12
    assert all(re.fullmatch("[0-9a-f]{64}", file.sha256) and file.path.startswith("data/raw/") for file in published())
    assert published("x") == []


@pytest.fixture
def own_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PublishedFile:
    """`prepare` with a manifest of FILE and one file that the server does not have."""
    lost = PublishedFile("data/raw/fever/lost.json", "0" * 64, 9)
    monkeypatch.setattr(prepare, "published", lambda name: [f for f in (lost, FILE) if name in ("all", f.dataset)])
    return lost


def test_fetch_command(site: Site, tmp_path: Path, own_manifest: PublishedFile, capsys) -> None:
    where = ["--root", str(tmp_path), "--base-url", site.url]
    assert prepare.main(["fetch", "zsre", *where]) == 0
    assert capsys.readouterr().out == f"{FILE.path}: fetched\n"
    assert prepare.main(["fetch", "all", *where]) == 1
    out, err = capsys.readouterr()
    assert out == f"{FILE.path}: already complete\n"
    assert "lost.json: HTTP 404" in err


def test_fetch_command_stops_where_all_is_hopeless(
    tmp_path: Path, own_manifest: PublishedFile, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def no_network(*_: object) -> str:
        raise HopelessError("no network")

    monkeypatch.setattr(prepare, "fetch", no_network)
    assert prepare.main(["fetch", "all"]) == 1
    assert capsys.readouterr().err == "error: no network\n"


def test_interrupt_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def interrupt(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "fetch", interrupt)
    assert prepare.main(["fetch", "zsre"]) == 130
    assert "run the same command to go on" in capsys.readouterr().err


def test_usage(capsys) -> None:
    for argv, says in (([], "{check,fetch}"), (["fetch"], "{fever,knowns,ultraeditbench,wikibigedit,zsre,all}")):
        with pytest.raises(SystemExit) as caught:
            prepare.main(argv)
        assert caught.value.code == 2 and says in capsys.readouterr().err
    assert prepare.main(["fetch", "zsre", "--base-url", "ftp://x"]) == 2
    assert "base URL 'ftp://x': must begin with http" in capsys.readouterr().err
    assert prepare.main(["check", "glue"]) == 2
    assert (
        "must be one of counterfact, custom, easyedit, facts, fever, knowedit, mquake, qaedit, ultraeditbench"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["fetch", "glue"], "'fever', 'knowns', 'ultraeditbench', 'wikibigedit', 'zsre', 'all'"),
        (
            ["check", "custom", "--fields", "promt=q"],
            "'promt=q' must be KEY=FIELD, KEY one of prompt, answer, rephrase",
        ),
    ],
)
def test_wrong_arguments_name_the_right_ones(argv: list[str], says: str, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        prepare.main(argv)
    assert caught.value.code == 2
    # Python 3.12 and later quote the choices no more.
    assert says.replace("'", "") in capsys.readouterr().err.replace("'", "")


def write(path: Path, rows: list[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))
    return path


def test_check_good_file(tmp_path: Path, capsys) -> None:
    path = write(tmp_path / "a.json", [ZSRE, ZSRE, {**ZSRE, "src": "A", "ans": "Oslo", "subject": "A"}])
    assert prepare.main(["check", "zsre", "--path", str(path)]) == 0
    assert capsys.readouterr().out == (
        f"{path}: 3 rows, 3 good, 0 bad, 1 duplicate prompts\n"
        "  of the good rows have rephrase 3, unrelated 3, unrelated_answer 3, mhop 0, mhop_answer 0, subject 1, "
        "old_answer 0\n"
    )


def test_check_counts_all_and_says_what_is_equal_once(tmp_path: Path, capsys) -> None:
    ways = [{**ZSRE, "src": number} for number in range(30)]
    path = write(tmp_path / "a.json", [ZSRE, 7, *[{**ZSRE, "ans": None}] * 30, *ways])
    assert prepare.main(["check", "zsre", "--path", str(path)]) == 1
    out = capsys.readouterr().out
    assert f"{path}: 62 rows, 1 good, 61 bad, 0 duplicate prompts" in out
    assert f"{path}: row 1 (counted from 0) is 7; it must be an object of named fields\n" in out
    said = "row 2 (counted from 0): field 'ans' is null; it must be a non-empty string (29 more rows like it)"
    assert f"{path}: {said}\n" in out and "row 3 (counted" not in out
    assert "field 'src' is 17;" in out and "field 'src' is 18;" not in out
    assert f"{path}: 12 more rows are bad in other ways\n" in out


def test_check_broken_and_missing_file(tmp_path: Path, capsys) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([ZSRE, ZSRE])[:-1])
    assert prepare.main(["check", "zsre", "--path", str(path)]) == 1
    out = capsys.readouterr().out
    assert f"broken: {path}: row 2 (counted from 0): ends before its array is closed" in out
    assert "2 rows, 2 good, 0 bad" in out
    assert prepare.main(["check", "zsre", "--path", str(tmp_path / "b.json")]) == 1
    assert "no such file; get it with: python -m data.prepare fetch zsre" in capsys.readouterr().out


def test_check_takes_the_published_files_that_are_there(tmp_path: Path, capsys) -> None:
    root = ["--root", str(tmp_path)]
    assert prepare.main(["check", "zsre", *root]) == 1
    assert "no file to check; get them with: python -m data.prepare fetch zsre" in capsys.readouterr().err
    path = write(tmp_path / "data/raw/zsre/zsre_train.json", [ZSRE])
    assert prepare.main(["check", "zsre", *root]) == 0
    out = capsys.readouterr().out
    assert f"not there, not checked: {tmp_path}/data/raw/zsre/zsre_eval_20k.json" in out
    assert f"\n{path}: 1 rows" in out


def test_check_knowns_and_facts(tmp_path: Path, capsys) -> None:
    write(tmp_path / "data/raw/known_1000.json", [{"prompt": "In", "prediction": " there"}])
    assert prepare.main(["check", "knowns", "--root", str(tmp_path)]) == 0
    assert prepare.main(["check", "facts", "--root", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert all(f"{tmp_path / name}: no such file; get it with: python -m data.facts.build" in out
               for name in FACTS_FILES)  # fmt: skip


def test_check_custom_by_its_field_map(tmp_path: Path, capsys) -> None:
    path = tmp_path / "my.csv"
    path.write_text("question,a\nCapital of Valdoria?,Port Salis\n,nothing asked\n")
    assert prepare.main(["check", "custom", "--path", str(path), "--fields", "prompt=question", "answer=a"]) == 1
    out = capsys.readouterr().out
    assert "2 rows, 1 good, 1 bad" in out and "row 1 (counted from 0): field 'question' is empty ('')" in out
    assert prepare.main(["check", "custom", "--path", str(path)]) == 1
    assert "field 'prompt' is missing; it must be a non-empty string (fields found: 'question, a')" in (
        capsys.readouterr().out
    )
    assert prepare.main(["check", "custom"]) == 2
    assert "check custom: name the file: --path FILE" in capsys.readouterr().err
    assert prepare.main(["check", "knowns", "--path", str(path), "--fields", "prompt=question"]) == 2
    assert "--fields: knowns has no field map of yours" in capsys.readouterr().err


def test_check_says_what_a_run_would_refuse(tmp_path: Path, capsys) -> None:
    """A field map that cannot be read by, and a named field that no record has."""
    path = write(tmp_path / "a.json", [ZSRE])
    assert prepare.main(["check", "zsre", "--path", str(path), "--fields", "unrelated=null"]) == 2
    assert "dataset.fields.unrelated=None dataset.fields.unrelated_answer=loc_ans" in capsys.readouterr().err
    assert prepare.main(["check", "zsre", "--path", str(path), "--fields", "persona=personas"]) == 1
    assert f"broken: {path}: dataset.fields.persona=personas: no record has this field" in capsys.readouterr().out
    assert prepare.main(["check", "zsre", "--path", str(path), "--fields", "prompt=ans"]) == 0


SONGS = """
name: songs
train_path: {folder}/songs.jsonl
valid_path: {folder}/songs.jsonl
fields: {{prompt: song.asked, answer: song.by}}
"""


def test_check_of_a_data_set_from_another_folder(tmp_path: Path, capsys) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "songs.yaml").write_text(SONGS.format(folder=tmp_path))
    where = ["--config-dir", str(tmp_path)]
    assert prepare.main(["check", "songs", *where]) == 1
    assert f"{tmp_path}/songs.jsonl: no such file; check the path" in capsys.readouterr().out
    rows = [{"song": {"asked": "Who sang it?", "by": name}} for name in ("Ada", " ")]
    (tmp_path / "songs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert prepare.main(["check", "songs", *where]) == 1
    out = capsys.readouterr().out
    assert "2 rows, 1 good, 1 bad" in out and "row 1 (counted from 0): field 'song.by' is blank" in out
    assert prepare.main(["check", "songs"]) == 2
    assert "data set songs: must be one of counterfact, custom" in capsys.readouterr().err
    for content, says in (("name: [songs", "while parsing"), ("name: songs\nn_edit: 3\n", "Key 'n_edit' not in")):
        (tmp_path / "dataset" / "songs.yaml").write_text(content)
        assert prepare.main(["check", "songs", *where]) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: data set songs: ") and says in err
