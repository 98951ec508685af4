"""data.stream: every format, every way a file can be wrong, and how little of it is read."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import stream
from data.base import DataError
from data.stream import MAX_RECORD, array_values, iter_rows, scan

ROWS = [
    {"src": "Wim Ilmarin was born in", "n": 1.5, "more": {"list": [1, None, True]}},
    {"src": "Zoë → ☃"},
    {},
]
NAMES = ["a.json", "a.jsonl", "a.json.xz", "a.jsonl.xz", "a.json.gz", "a.jsonl.gz", "A.JSON"]


def encode(name: str, rows: list[object]) -> bytes:
    name = name.lower()
    lines = ".jsonl" in name
    data = ("".join(json.dumps(row) + "\n" for row in rows) if lines else json.dumps(rows, ensure_ascii=False)).encode()
    return lzma.compress(data) if name.endswith(".xz") else gzip.compress(data) if name.endswith(".gz") else data


def problem(path: Path) -> str:
    """The message of the error that reading `path` to its end raises."""
    with pytest.raises(DataError) as caught:
        list(iter_rows(path))
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, bytes], Path]:
    def _write(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return _write


@pytest.mark.parametrize("name", NAMES)
def test_rows_come_in_order(write, name: str) -> None:
    assert list(iter_rows(write(name, encode(name, ROWS)))) == ROWS


@pytest.mark.parametrize("name", NAMES)
def test_a_string_path_will_do_and_may_be_read_twice(write, name: str) -> None:
    path = str(write(name, encode(name, ROWS)))
    assert [list(iter_rows(path)) for _ in range(2)] == [ROWS, ROWS]


def test_empty_array_has_no_rows(write) -> None:
    assert list(iter_rows(write("a.json", b" [ ] \n"))) == []


def test_blank_lines_and_crlf_are_passed_over(write) -> None:
    assert list(iter_rows(write("a.jsonl", b'\r\n{"a": 1}\r\n\n{"a": 2}'))) == [{"a": 1}, {"a": 2}]


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    # Half a surrogate pair is no text; data.base refuses it.
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(st.text("abcé", max_size=4), VALUES, max_size=4) | VALUES, max_size=6))
@pytest.mark.parametrize("chunk", [1, 3, stream.CHUNK])
def test_array_is_what_json_says(chunk: int, rows: list[object]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "CHUNK", chunk)
        for text in (json.dumps(rows), json.dumps(rows, indent=1, ensure_ascii=False)):
            assert list(array_values(io.StringIO(text))) == json.loads(text)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv", "a.jsonl.gz", "a.csv.xz"])
def test_a_byte_order_mark_is_passed_over(write, name: str) -> None:
    text = {"json": b'[{"a": "1"}]', "jsonl": b'{"a": "1"}\n', "csv": b"a\r\n1\r\n"}[name.split(".")[1]]
    pack = {"gz": gzip.compress, "xz": lzma.compress}.get(name.split(".")[-1], bytes)
    assert list(iter_rows(write(name, pack(b"\xef\xbb\xbf" + text)))) == [{"a": "1"}]


CSV_ROWS = st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), min_size=2, max_size=2))


@settings(max_examples=60, deadline=None)
@given(CSV_ROWS)
def test_csv_is_what_was_written(tmp_path_factory, rows: list[list[str]]) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["a", "b"], *rows])
    assert list(iter_rows(path)) == [{"a": a, "b": b} for a, b in rows]


def test_csv_quoting_blank_lines_and_header_spaces(write) -> None:
    content = b'question , a\r\n\r\n"one, ""two""\nthree",x\r\n, \r\n'
    assert list(iter_rows(write("a.csv", content))) == [
        {"question": 'one, "two"\nthree', "a": "x"},
        {"question": "", "a": " "},
    ]


def test_missing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no such file; check the path" in problem(tmp_path / "a.json")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=f"^a.json: no such file in {tmp_path}; get it with: make it"):
        list(iter_rows("a.json", how_to_get="make it"))


def test_directory(tmp_path: Path) -> None:
    (tmp_path / "zsre").mkdir()
    assert "is a directory; name the record file inside it" in problem(tmp_path / "zsre")


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "device.jsonl").symlink_to(os.devnull)
    for name in ("pipe.json", "device.jsonl"):
        assert "is not a regular file but a pipe, a socket or a device" in problem(tmp_path / name)


def test_a_name_of_300_characters(tmp_path: Path) -> None:
    assert "cannot be opened (File name too long)" in problem(tmp_path / f"{'x' * 300}.json")


def test_unreadable_file(tmp_path: Path) -> None:
    (tmp_path / "loop.json").symlink_to(tmp_path / "loop.json")
    assert "cannot be opened" in problem(tmp_path / "loop.json")


def test_unknown_format(write) -> None:
    for name in ("a.tsv", "a.xz", "a.json.zip", "noname"):
        assert "must end in .json, .jsonl or .csv, alone or compressed as .xz or .gz" in problem(write(name, b"x"))


WHOLE_FILE = [
    ("a.json", b"", "is empty (0 bytes)"),
    ("a.csv", b"", "is empty (0 bytes)"),
    ("a.csv", b" \n ", "is empty but for white space"),
    ("a.csv.gz", b"a,b\n1,2\n", "damaged or no .gz file; fetch it again"),
    ("a.jsonl.xz", b"", "is empty (0 bytes)"),
    ("a.json", b" \n ", "is empty but for white space"),
    ("a.json.gz", gzip.compress(b""), "is empty but for white space"),
    ("a.json", b'{"src": 1}', "is JSON but no array (starts with '{\"src\": 1}'); it must be one array"),
    ("a.json", b"12", "is no JSON array (starts with '12')"),
    ("a.json", b"<html>", "is no JSON array (starts with '<html>'); it must be one array: [{...}, ...]"),
    ("a.json", b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    ("a.jsonl", b'[{"a": 1}]', "starts with '['; a .jsonl file has one object a line"),
    ("a.json.xz", b'[{"a": 1}]', "damaged or no .xz file; fetch it again"),
    ("a.jsonl.gz", b'{"a": 1}', "damaged or no .gz file; fetch it again"),
]


@pytest.mark.parametrize(("name", "content", "says"), WHOLE_FILE)
def test_file_of_another_kind(write, name: str, content: bytes, says: str) -> None:
    assert says in problem(write(name, content))


TOO_LONG = "is longer than 16 MiB, which no record may be"
ROW_ONE = [
    ("a.json", b'[{"a":1}, oops]', "is not JSON near '[{\"a\":1}, oops]' (Expecting value)"),
    ("a.json", b'[{"a":1},]', "the file must be one array of objects"),
    ("a.json", b'[{"a":1},{"a":NaN}]', "holds NaN, which is no JSON number; write a number or null"),
    ("a.json", b'[{"a":1},{"a":-Infinity}]', "holds -Infinity, which is no JSON number"),
    ("a.json", b'[{"a":1},{"a":"\xff\xfe"}]', "holds bytes that are not UTF-8; the file must be UTF-8 text"),
    ("a.json", b'[{"a":1},7]', "is 7; it must be an object of named fields"),
    ("a.json", b'[{"a":1},null]', "is null; it must be an object"),
    ("a.json", b'[{"a":1},[{"a":1}]]', "is [{'a': 1}]; it must be an object"),
    ("a.json", b'[{"a":1},{"b":1,"a":2,"b":"three"}]', "field 'b' is there twice (the last is 'three')"),
    ("a.json", b'[{"a":1}] [', "is not JSON near"),
    ("a.jsonl", b'{"a":1}\noops\n', "is not JSON: 'oops\\n'"),
    ("a.jsonl", b'{"a":1}\n{"a":NaN}\n', "holds NaN, which is no JSON number"),
    ("a.jsonl", b'{"a":1}\n{"a":"\xff"}\n', "holds bytes that are not UTF-8"),
    ("a.jsonl", b'{"a":1}\n"text"\n', "is 'text'; it must be an object"),
    ("a.jsonl", b'{"a":1}\n{"b":1,"b":2}\n', "field 'b' is there twice (the last is 2); a row must name"),
    ("a.jsonl", b'{"a":1}\n{"b":' + b"[" * 200_000 + b"\n", "it must be one object on its line"),
    ("a.jsonl", b'{"a":1}\n{"b": 2', "ends inside this row; the file is cut short, fetch it again"),
    ("a.jsonl", b'{"a":1}\n{"b":"\xc3', "ends inside this row; the file is cut short, fetch it again"),
    ("a.jsonl", b'{"a":1}\n' + b" " * (MAX_RECORD + 1), TOO_LONG),
    ("a.csv", b"a,b\n1,2\n1,2,3\n", "has 3 cells where the header has 2 ('a, b'); put a cell that holds a comma in"),
    ("a.csv", b"a,b\n1,2\n1\n", "has 1 cells where the header has 2"),
    ("a.csv", b"a,b\n1,2\n1,\xe9\n", "holds bytes that are not UTF-8; the file must be UTF-8 text"),
    ("a.csv", b'a,b\n1,2\n1,"2\n3,4\n', "is not CSV (unexpected end of data); is a quote left open?"),
    ("a.csv", b'a,b\n1,2\n1,"2"3\n', "is not CSV (',' expected after '\"'); is a quote left open?"),
    ("a.csv", b"a,b\n1,2\n1," + b"x" * 200_000, "is not CSV (field larger than field limit (131072))"),
    ("a.csv", b"a,b\n1,2\n" + b"x," * (MAX_RECORD // 2 + 1), TOO_LONG),
]


@pytest.mark.parametrize(("name", "content", "says"), ROW_ONE)
def test_bad_row_is_named(write, name: str, content: bytes, says: str) -> None:
    message = problem(write(name, content))
    assert "row 1 (counted from 0)" in message
    assert says in message
    assert len(message) < 400


HEADERS = [
    (b"a;b\n1;2\n", "the header is one column, 'a;b'; the columns must be separated by commas"),
    (b"\xff\xfea\x00\n", "holds bytes that are not UTF-8"),
    (b"a,b,a\n1,2,3\n", "field 'a' is there twice (the last is '3'); a row must name a field once"),
]


@pytest.mark.parametrize(("content", "says"), HEADERS)
def test_csv_header_that_is_none(write, content: bytes, says: str) -> None:
    message = problem(write("a.csv", content))
    assert "row 0 (counted from 0)" in message and says in message


def test_an_array_cut_anywhere_is_said_to_be_cut(write) -> None:
    whole = json.dumps([{"a": True, "é": [-1.5e-7, "☃"]}, {"b": "x\u2028y"}], ensure_ascii=False).encode()
    whole = whole.replace(b"y", b"\\u00e9\\n\\ud83d\\ude00")
    for end in range(1, len(whole)):
        assert "ends before its array is closed; the file is cut short, fetch it again" in problem(
            write("a.json", whole[:end])
        )


def test_row_number_of_a_cut_array_and_rows_before_it(write) -> None:
    path = write("a.json", json.dumps([{"a": i} for i in range(50_000)]).encode()[:-3])
    rows = iter_rows(path)
    assert [next(rows)["a"] for _ in range(49_999)] == list(range(49_999))
    with pytest.raises(DataError, match=r"row 49999 \(counted from 0\): ends before"):
        next(rows)


def noise(count: int) -> list[object]:
    """Rows that do not compress away."""
    draw = random.Random(0)
    return [{"a": str(draw.random())} for _ in range(count)]


@pytest.mark.parametrize("name", [n for n in NAMES if n.endswith(("xz", "gz"))])
def test_cut_compressed_file(write, name: str) -> None:
    content = encode(name, noise(2000))
    for end in (10, len(content) // 2, len(content) - 4):
        assert "the file is cut short, damaged or no ." in problem(write(name, content[:end]))


@pytest.mark.parametrize("name", [n for n in NAMES if n.endswith(("xz", "gz"))])
def test_damaged_compressed_file(write, name: str) -> None:
    content = bytearray(encode(name, noise(20_000)))
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    assert "counted from 0" in problem(write(name, bytes(content)))


def test_scan_goes_on_after_a_bad_row(write) -> None:
    content = {"a.json": b'[{"a":1},3,{"a":2}]', "a.jsonl": b'{"a":1}\n{oops}\n{"a":2}\n'}
    content["a.csv"] = b"a\n1\n1,2\n2\n"
    content |= {"b.json": b'[{"a":1},{"a":"\xff"},{"a":2}]', "b.jsonl": b'{"a":1}\n{"a":"\xff"}\n{"a":2}\n'}
    for name, text in content.items():
        first, bad, last = scan(write(name, text))
        assert [int(row["a"]) for row in (first, last)] == [1, 2]
        assert isinstance(bad, DataError)


class Counting:
    """Opens files as `open` does and counts the bytes that are read from them."""

    def __init__(self) -> None:
        self.bytes = 0
        self.closed = False

    def __call__(self, path: Path, mode: str) -> io.BufferedReader:
        counter = self

        class Raw(io.FileIO):
            def readinto(self, buffer: memoryview) -> int:
                got = super().readinto(buffer)
                counter.bytes += got
                return got

            def close(self) -> None:
                counter.closed = True
                super().close()

        return io.BufferedReader(Raw(path, mode))


@pytest.mark.parametrize("name", ["big.json", "big.jsonl", "big.csv"])
def test_reading_a_hundred_rows_of_a_big_file_reads_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / name
    row = f"{'q' * 280},{'a' * 20}" if name.endswith(".csv") else json.dumps({"src": "q" * 280, "ans": "a" * 20})
    left, between, right = ("[", ",\n", "]") if name.endswith(".json") else ("", "\n", "\n")
    block = between.join([row] * 1000)
    with path.open("w") as out:
        out.write(left + between.join([block] * 190) + right)
    assert path.stat().st_size > 55_000_000
    opener = Counting()
    monkeypatch.setattr(stream, "open", opener, raising=False)
    rows = iter_rows(path)
    assert sum(1 for _, _ in zip(range(100), rows, strict=False)) == 100
    rows.close()
    assert opener.bytes < 300_000
    assert opener.closed


@pytest.mark.parametrize(("start", "more"), [('{"a": "', "x"), ('{"a": [', '"y", '), ('{"a": 1', " ")])
def test_a_record_of_an_array_has_a_limit_and_is_refused_soon(tmp_path, monkeypatch, start: str, more: str) -> None:
    path = tmp_path / "long.json"
    with path.open("w") as out:
        out.write('[{"a": 1}, ' + start)
        for _ in range(64):
            out.write(more * ((1 << 20) // len(more)))
    opener = Counting()
    monkeypatch.setattr(stream, "open", opener, raising=False)
    rows = scan(path)
    assert next(rows) == {"a": 1}
    with pytest.raises(
        DataError, match=r"long.json: row 1 \(counted from 0\): (is longer than 16 MiB|is not JSON near)"
    ):
        next(rows)
    assert opener.bytes < 20 << 20


def test_a_record_below_the_limit_is_read_whole(write) -> None:
    rows = [{"a": "x" * (5 << 20)}, {"b": [1] * 100_000}, {}]
    assert list(iter_rows(write("a.json", json.dumps(rows).encode()))) == rows


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_half_a_surrogate_pair_is_kept_for_the_reader_to_refuse(write, name: str) -> None:
    halves = [{"a": text} for text in ("x\ud83d", "\ude00x", "\ud83d\ud83d", "\ud83d\n", "\\ud83d")]
    between = {"a.json": ", ", "a.jsonl": "\n"}[name]
    content = between.join(json.dumps(row) for row in halves)
    assert list(iter_rows(write(name, (f"[{content}]" if name == "a.json" else content).encode()))) == halves


@pytest.mark.parametrize("level", [b"[", b'{"a": ', b'[ {\n"key": '])
def test_a_row_nested_without_end_is_refused_before_it_takes_all_memory(tmp_path, level) -> None:
    path = tmp_path / "deep.json"
    path.write_bytes(b"[" + level * 100_000)
    with pytest.raises(DataError, match=r"row 0 \(counted from 0\): is nested a thousand levels deep"):
        list(iter_rows(path))
