"""Data files: records, known facts, downstream subsets and the texts beside them."""

from __future__ import annotations

import copy
import gzip
import json
import lzma
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.hostile import spoil
from tests.hostile.case import Case, Wants, accepted, either, refused
from tests.hostile.clean import ROWS, SST, same_run, small

VALID, TRAIN, KNOWNS = "dataset.valid_path", "dataset.train_path", "eval.knowns_path"
FIELDS = ("src", "ans", "rephrase", "loc", "loc_ans")
SAME = same_run("small")
BAD = 3  # the row that is spoiled
WHOLE = json.dumps(ROWS, indent=0)
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def with_row(row: object) -> str:
    """The records as JSON, one of them another."""
    return json.dumps([*ROWS[:BAD], row, *ROWS[BAD + 1 :]], indent=0)


def with_value(field: str, value: object) -> str:
    """The records as JSON, one field of one of them another."""
    return with_row(ROWS[BAD] | {field: value})


def raw(field: str, value: str) -> str:
    """As with_value, the value as it stands in the file."""
    return with_value(field, "@@").replace('"@@"', value)


def csv(rows: list[dict[str, Any]], line: str = "\n") -> str:
    """The records as CSV."""
    quote = '"'
    cells = [[quote + str(row[f]).replace(quote, quote * 2) + quote for f in FIELDS] for row in rows]
    return line.join([",".join(FIELDS), *map(",".join, cells), ""])


ROW = f"row {BAD} "
NOT_TEXT: list[tuple[str, str]] = [
    ("null", "null"), ("a number", "7"), ("true", "true"), ("a list", '["a"]'), ("an object", '{"a": 1}'),
    ("empty", '""'), ("blank", '" \\t "'), ("half a surrogate pair", '"a\\ud800"'),
    ("NaN", "NaN"), ("Infinity", "-Infinity"), ("a huge number", "1e400"), ("4,500 digits", "9" * 4500),
]  # fmt: skip
CONTENTS: list[tuple[str, str, str | bytes, Wants]] = [
    ("empty", "a.json", "", refused(VALID, "a.json", "empty")),
    ("blank", "a.json", " \n\t ", refused(VALID, "a.json", "empty")),
    ("words", "a.json", "this is no JSON", refused(VALID, "a.json", "no JSON array")),
    ("an object", "a.json", '{"a": []}', refused(VALID, "a.json", "no array")),
    ("a web page", "a.json", "<!DOCTYPE html><html></html>", refused(VALID, "a.json", "no JSON array")),
    ("a Git LFS pointer", "a.json", "version https://git-lfs.github.com/spec/v1\n", refused(VALID, "Git LFS")),
    ("cut in a row", "a.json", WHOLE[: len(WHOLE) // 20], refused(VALID, "a.json", "cut short")),
    ("cut between rows", "a.json", json.dumps(ROWS[:2])[:-1], refused(VALID, "a.json", "cut short")),
    ("no rows", "a.json", "[]", refused(VALID, "a.json", "0 records")),
    ("too few rows", "a.json", json.dumps(ROWS[:7]), refused(VALID, "a.json", "7 records")),
    ("a comma too many", "a.json", WHOLE.replace("},", "},,", 1), refused(VALID, "a.json", "not JSON")),
    ("a key without quotes", "a.json", WHOLE.replace('"src"', "src", 1), refused(VALID, "a.json", "not JSON")),
    ("single quotes", "a.json", WHOLE[:400].replace('"', "'"), refused(VALID, "a.json", "not JSON")),
    ("UTF-16", "a.json", WHOLE.encode("utf-16"), refused(VALID, "a.json")),
    ("UTF-16 without its mark", "a.json", WHOLE.encode("utf-16-le"), refused(VALID, "a.json")),
    ("Latin-1", "a.json", with_value("src", "caf\xe9?").replace("\\u00e9", "\xe9").encode("latin-1"),
     refused(VALID, "a.json", "UTF-8")),
    ("a byte-order mark", "a.json", b"\xef\xbb\xbf" + WHOLE.encode(), accepted("the mark says UTF-8", SAME)),
    ("a NUL in a text", "a.json", with_value("src", "@@").replace("@@", "a\0b").encode(), refused(VALID, "a.json")),
    ("more behind the array", "a.json", WHOLE + "[]", accepted("only the rows that are needed are read", SAME)),
    ("nested 100,000 deep", "a.json", "[" + "[" * 100_000, refused(VALID, "a.json", "deep")),
    ("a field nested 900 deep", "a.json", raw("more", "[" * 900 + "]" * 900), accepted("nothing reads it", SAME)),
    ("a field nested 50,000 deep", "a.json", raw("more", "[" * 50_000 + "]" * 50_000),
     refused(VALID, "a.json", "deep")),
    ("a text of 40 MB", "a.json", raw("src", '"' + "why " * 10_000_000 + '"'), refused(VALID, "a.json", ROW)),
    ("a prompt longer than the context", "a.json", with_value("src", "why " * 2000), refused(VALID, ROW, "context")),
    ("an answer longer than the context", "a.json", with_value("ans", "why " * 2000), refused(VALID, ROW, "context")),
    ("a surrogate pair", "a.json", raw("more", '"\\ud83d\\ude00"'), accepted("both halves are there", SAME)),
    ("control characters", "a.json", with_value("src", "who\x1b]0;x\x07\x9b2J?"), accepted("shown escaped")),
    ("control characters in an answer", "a.json", with_value("ans", "a\x1b]0;x\x07b"), accepted("shown escaped")),
    ("markup", "a.json", with_value("src", "<script>alert(1)</script>"), accepted("it is a text")),
    ("a duplicate key", "a.json", raw("more", '1, "src": "again"'), refused(VALID, ROW, "twice")),
    ("a JSON array named JSON lines", "a.jsonl", WHOLE, refused(VALID, "a.jsonl", "one object a line")),
    ("JSON lines named JSON", "a.json", LINES, refused(VALID, "a.json", "jsonl")),
    ("JSON lines", "a.jsonl", LINES, accepted("the same records", SAME)),
    ("JSON lines with empty lines", "a.jsonl", LINES.replace("\n", "\n\n"), accepted("no line is a row", SAME)),
    ("JSON lines of Windows", "a.jsonl", LINES.replace("\n", "\r\n"), accepted("the same records", SAME)),
    ("a line of garbage", "a.jsonl", LINES.replace("\n", "\nxyz\n", 3), refused(VALID, "a.jsonl", "not JSON")),
    ("two rows on a line", "a.jsonl", LINES.replace("\n", " ", 1), refused(VALID, "row 0 ")),
    ("the last line cut", "a.jsonl", LINES[:900], refused(VALID, "a.jsonl", "cut short")),
    ("a line nested 100,000 deep", "a.jsonl", "[" * 100_000, refused(VALID, "a.jsonl")),
    ("a nested line", "a.jsonl", '{"a":' * 90_000, refused(VALID, "a.jsonl", "row 0 ")),
    ("NaN in a line", "a.jsonl", LINES.replace("\n", '\n{"src": NaN}\n', 1), refused(VALID, "row 1 ", "NaN")),
    ("a NUL byte in lines", "a.jsonl", "\0" + LINES, refused(VALID, "a.jsonl")),
    ("CSV", "a.csv", csv(ROWS), accepted("the same records", SAME)),
    ("CSV of a spreadsheet", "a.csv", "\ufeff" + csv(ROWS, "\r\n"), accepted("the same records", SAME)),
    ("CSV without a header", "a.csv", csv(ROWS).partition("\n")[2], refused(VALID, "a.csv", "'src'")),
    ("CSV with its header alone", "a.csv", csv([]), refused(VALID, "a.csv", "0 records")),
    ("CSV with semicolons", "a.csv", csv(ROWS).replace('","', '";"').replace(",", ";"), refused(VALID, "comma")),
    ("CSV with a short row", "a.csv", csv(ROWS[:2]) + "a,b\n", refused(VALID, "row 2 ", "cells")),
    ("CSV with an open quote", "a.csv", csv(ROWS[:2]) + '"a,b\n', refused(VALID, "a.csv", "quote")),
    ("CSV with a NUL", "a.csv", csv(ROWS[:2]) + "a\0,b,c,d,e\n" + csv(ROWS[2:]),
     either("a NUL is a character", "a.csv")),
    ("CSV in Latin-1", "a.csv", csv(ROWS[:1]).encode() + b"caf\xe9,b,c,d,e\n", refused(VALID, "row 1 ", "UTF-8")),
    ("CSV with a column twice", "a.csv", csv(ROWS).replace("ans", "src", 1), refused(VALID, "'src'", "twice")),
    ("CSV with a column without a name", "a.csv", csv(ROWS).replace("ans", "", 1), refused(VALID, "'ans'")),
    ("CSV with a formula", "a.csv", csv([ROWS[0] | {"src": "=cmd()"}, *ROWS[1:]]), accepted("it is a text")),
    ("gzip", "a.json.gz", gzip.compress(WHOLE.encode()), accepted("the same records", SAME)),
    ("gzip that is none", "a.json.gz", WHOLE, refused(VALID, "a.json.gz", "no .gz file")),
    ("gzip cut", "a.json.gz", gzip.compress(WHOLE.encode())[:300], refused(VALID, "a.json.gz", "cut short")),
    ("gzip with garbage inside", "a.json.gz", gzip.compress(WHOLE.encode())[:100] + b"\xff" * 4000,
     refused(VALID, "a.json.gz", "fetch it again")),
    ("gzip without its name", "a.json", gzip.compress(WHOLE.encode()), refused(VALID, "a.json", "no JSON array")),
    ("gzip of nothing", "a.json.gz", gzip.compress(b""), refused(VALID, "a.json.gz", "empty")),
    ("a zip bomb", "a.jsonl.gz", gzip.compress(b"x" * 2**28, 1), refused(VALID, "a.jsonl.gz", "longer than")),
    ("xz", "a.csv.xz", lzma.compress(csv(ROWS).encode()), accepted("the same records", SAME)),
    ("xz that is none", "a.json.xz", WHOLE, refused(VALID, "a.json.xz", "no .xz file")),
    ("xz cut", "a.json.xz", lzma.compress(WHOLE.encode())[:200], refused(VALID, "a.json.xz", "cut short")),
    ("a name without an end", "records", WHOLE, refused(VALID, "records", ".json")),
    ("another end", "a.txt", WHOLE, refused(VALID, "a.txt", ".json")),
    ("capitals", "A.JSON", WHOLE, accepted("the same records", SAME)),
    ("a name with quotes and spaces", "a b.json", WHOLE, accepted("the same records", SAME)),
]  # fmt: skip


def content_case(name: str, file: str, content: str | bytes, want: Wants, key: str = VALID) -> Case:
    """A run on a file with that content."""

    def make(folder: Path, _: object) -> list[str]:
        (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        return small(f"{key}='{file}'")

    return Case("records", f"{key.partition('.')[2]} {name}", make, want)


def fields() -> Iterator[Case]:
    """Every field of a record with every value that is no text."""
    for field in FIELDS:
        row = {key: value for key, value in ROWS[BAD].items() if key != field}
        optional = field in ("rephrase", "loc", "loc_ans")
        yield content_case(f"{field} missing", "a.json", with_row(row), refused(VALID, ROW, field))
        for name, value in NOT_TEXT:
            no_json, end = name in ("NaN", "Infinity", "a huge number", "half a surrogate pair"), field.endswith("ans")
            want = refused(VALID, "a.json") if no_json else refused(VALID, ROW, field)
            if name in ("a number", "4,500 digits") and end:
                want = either("an answer may be a number", VALID)
            elif name == "4,500 digits":
                want = refused(VALID, "a.json")
            if optional and name in ("null", "empty", "blank"):
                want = refused(VALID, ROW, field)
            yield content_case(f"{field} {name}", "a.json", raw(field, value), want)
    for name, value in [*NOT_TEXT[:7], ("a word", '"a"')]:
        text = json.dumps([*ROWS[:BAD], "@@", *ROWS[BAD + 1 :]]).replace('"@@"', value)
        want = refused(VALID, ROW, "object") if name != "an object" else refused(VALID, ROW, "'src'")
        yield content_case(f"a row that is {name}", "a.json", text, want)


PLACES: list[tuple[str, Callable[[Path], object], tuple[str | tuple[str, ...], ...]]] = [
    ("that is not there", lambda path: None, ("no such file",)),
    ("that is a folder", lambda path: path.mkdir(), (("a directory", "a folder", "no such file"),)),
    ("that is a pipe", os.mkfifo, (("pipe", "regular file", "no such file", "not a file"),)),
    ("that is a link to nowhere", lambda path: path.symlink_to("nowhere"), ("no such file",)),
    ("that is a link to itself", lambda path: path.symlink_to(path), ()),
    ("that is an endless device", lambda path: path.symlink_to("/dev/zero"), ()),
    ("that is an empty device", lambda path: path.symlink_to("/dev/null"), ()),
    ("that is a text", lambda path: path.write_text("words\n"), ()),
    ("that is garbage", spoil.garbage, ()),
    ("that is empty", spoil.emptied, ("empty",)),
]


def place_case(key: str, name: str, put: Callable[[Path], object], words: tuple[str | tuple[str, ...], ...]) -> Case:
    """A run on a file that is no file."""

    def make(folder: Path, _: object) -> list[str]:
        put(folder / "place.json")
        return small(f"{key}=place.json", *(["eval.knowns=4"] if key == KNOWNS else ()))

    return Case("records", f"{key.partition('.')[2]} {name}", make, refused(key, "place.json", *words))


def skipped() -> Iterator[Case]:
    """Bad rows that are passed over: the numbers are those without them."""
    for name, row in [("without an answer", {"src": "a"}), ("of a number", 7), ("of an empty prompt", {"src": ""})]:
        rows: list[Any] = copy.deepcopy(ROWS)
        rows.insert(BAD, row)

        def make(folder: Path, _: object, rows: list[Any] = rows) -> list[str]:
            (folder / "a.json").write_text(json.dumps(rows))
            return small(f"{VALID}=a.json", "dataset.on_bad_row=skip")

        why = "asked for: bad rows are passed over"
        yield Case("records", f"a row {name}, skipped", make, accepted(why, same_run("small", rows=False)))


KNOWN = [{"prompt": "The capital of France is", "prediction": " Paris"}] * 6
KNOWN_FILES: list[tuple[str, object, Wants]] = [
    ("without predictions", [{"prompt": "a"}], refused(KNOWNS, "row 0 ", "prediction")),
    ("of numbers", [{"prompt": 3, "prediction": 4}], refused(KNOWNS, "row 0 ", "prompt")),
    ("of nothing", [], either("no fact is known", KNOWNS)),
    ("of one fact", KNOWN[:1], accepted("fewer than the sample")),
    ("of a fact longer than the context", [KNOWN[0] | {"prompt": "why " * 2000}], refused(KNOWNS, "row 0 ", "context")),
    ("of control characters", [KNOWN[0] | {"prompt": "\x1b[2J a"}], accepted("it is not shown")),
    ("of a list", {"a": 1}, refused(KNOWNS, "no array")),
]


def known_facts() -> Iterator[Case]:
    """Files of known facts."""
    for name, content, want in KNOWN_FILES:

        def make(folder: Path, _: object, content: object = content) -> list[str]:
            (folder / "k.json").write_text(json.dumps(content))
            return small(f"{KNOWNS}=k.json", "eval.knowns=4")

        yield Case("records", f"known facts {name}", make, want)


SUBSET = [{"sentence": f"a fine film {i}", "label": i % 2} for i in range(110)]
DATA_DIR = "downstream.data_dir"
SUBSETS: list[tuple[str, Any, Wants]] = [
    ("right", SUBSET, accepted("a subset as it must be")),
    ("too few", SUBSET[:101], refused("downstream.number_of_tests", "sst2.jsonl")),
    ("no row", [], refused("sst2.jsonl", "empty")),
    ("no label", [{"sentence": "a"}], refused("sst2.jsonl", "row 0 ", "label")),
    ("a label of words", [{"sentence": "a", "label": "good"}], refused("sst2.jsonl", "row 0 ", "label")),
    ("a label of 7", [{"sentence": "a", "label": 7}], refused("sst2.jsonl", "row 0 ", "label")),
    ("a label of 1e20", [{"sentence": "a", "label": 10**20}], refused("sst2.jsonl", "row 0 ", "label")),
    ("a label of null", [{"sentence": "a", "label": None}], refused("sst2.jsonl", "row 0 ", "label")),
    ("a label of true", [{"sentence": "a", "label": [1]}], refused("sst2.jsonl", "row 0 ", "label")),
    ("a sentence of null", [{"sentence": None, "label": 1}], refused("sst2.jsonl", "row 0 ", "sentence")),
    ("an empty sentence", [{"sentence": "", "label": 1}], refused("sst2.jsonl", "row 0 ", "sentence")),
    ("a list", [["a", 1]], refused("sst2.jsonl", "one object a line")),
    ("a long sentence", [*SUBSET[:-8], *[{"sentence": "why " * 2000, "label": 1}] * 8],
     accepted("counted as too long")),
]  # fmt: skip


def downstream() -> Iterator[Case]:
    """Folders of the downstream subsets, and the text of the perplexity."""
    for name, rows, want in SUBSETS:

        def make(folder: Path, _: object, rows: Any = rows) -> list[str]:
            (folder / "sst2.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            return small(*SST, f"{DATA_DIR}=.")

        yield Case("downstream", f"subset: {name}", make, want)
    for name, put, _ in PLACES:

        def make_place(folder: Path, _: object, put: Callable[[Path], object] = put) -> list[str]:
            put(folder / "sst2.jsonl")
            return small(*SST, f"{DATA_DIR}=.")

        def make_text(folder: Path, _: object, put: Callable[[Path], object] = put) -> list[str]:
            put(folder / "text.txt")
            return small(*SST[:1], "downstream.tasks=[perplexity]", "downstream.perplexity_text=text.txt")

        yield Case("downstream", f"a subset {name}", make_place, refused("sst2.jsonl"))
        word = either("any text has a perplexity", "text") if name == "that is a text" else refused("text.txt")
        yield Case("downstream", f"a text {name}", make_text, word)
    yield Case("downstream", "no folder", lambda *_: small(*SST, f"{DATA_DIR}=nowhere"), refused("nowhere"))


def cases() -> Iterator[Case]:
    """All of them."""
    for row in CONTENTS:
        yield content_case(*row)
    yield from fields()
    for key in (VALID, TRAIN, KNOWNS):
        yield from (place_case(key, *place) for place in PLACES)
    yield from skipped()
    yield from known_facts()
    yield from downstream()
