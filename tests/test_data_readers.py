"""How a row of each data set becomes an edit, what a bad row says, and record files as a whole."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from config.compose import dataset_config
from config.schema import DatasetConfig, FieldsConfig
from data.base import DataError, Edit, shown
from data.fields import KNOWNS, RowReader, look_up, paths, read_known
from data.source import PROJECT, RecordFile, Source
from tests.layouts import LAYOUTS

ZSRE = {
    "subject": "Wim Ilmarin",
    "src": "Wim Ilmarin was born in the city of",
    "rephrase": "The birthplace of Wim Ilmarin is",
    "ans": "Bergen",
    "loc": "what is the opposite of hot",
    "loc_ans": "cold",
}
FEVER = {
    "prompt": "Wim Ilmarin was born in the city of",
    "equiv_prompt": ["The birthplace of Wim Ilmarin is"],
    "unrel_prompt": "what is the opposite of hot?",
    "alt": "Bergen",
    "unrel_ans": "cold",
}
ULTRA = {
    "prompt": "Wim Ilmarin was born in the city of",
    "rephrase_prompt": "The birthplace of Wim Ilmarin is",
    "ans": "Bergen",
    "loc": "what is the opposite of hot?",
    "loc_ans": "cold",
}
WIKI = {
    "update": "Wim Ilmarin was born in the city of",
    "rephrase": "The birthplace of Wim Ilmarin is",
    "ans": "Bergen",
    "personas": "Hey, quick one: Wim Ilmarin was born in the city of",
    "loc": "what is the opposite of hot?",
    "loc_ans": "cold",
    "mhop": "So then, The birthplace of Wim Ilmarin is",
    "mhop_ans": "Bergen, again",
}
FACTS = {"src": WIKI["update"], **{k: v for k, v in WIKI.items() if k != "update"}}
CUSTOM = {
    "prompt": WIKI["update"],
    "answer": "Bergen",
    "rephrase": WIKI["rephrase"],
    "unrelated": WIKI["loc"],
    "unrelated_answer": "cold",
}
KNOWN = {"known_id": 0, "prompt": "Vinson Massif is located in the continent", "prediction": " of Antarctica"}

PLAIN = Edit(
    row=4,
    prompt="Wim Ilmarin was born in the city of",
    answer="Bergen",
    rephrase="The birthplace of Wim Ilmarin is",
    unrelated="what is the opposite of hot?",
    unrelated_answer="cold",
)
FULL = Edit(
    **{name: getattr(PLAIN, name) for name in Edit.__slots__ if name not in ("persona", "mhop", "mhop_answer")},
    persona="Hey, quick one: Wim Ilmarin was born in the city of",
    mhop="So then, The birthplace of Wim Ilmarin is",
    mhop_answer="Bergen, again",
)
ROWS: dict[str, tuple[dict[str, Any], Edit]] = {
    "zsre": (ZSRE, replace(PLAIN, subject="Wim Ilmarin")),
    "fever": (FEVER, PLAIN),
    "ultraeditbench": (ULTRA, PLAIN),
    "wikibigedit": (WIKI, FULL),
    "facts": (FACTS, FULL),
    "custom": (CUSTOM, PLAIN),
}
READERS = {name: RowReader(dataset_config(name)) for name in ROWS}
CASES = {name: (READERS[name], *case) for name, case in ROWS.items()}
CASES["knowns"] = (read_known, KNOWN, Edit(4, str(KNOWN["prompt"]), " of Antarctica", None, None, None))
REQUIRED = [
    (name, field)
    for name, (_, row, _) in CASES.items()
    for field in row
    if name != "custom"  # its fields have names and messages of their own: tests/test_custom.py
    if field not in ("subject", "known_id") and not (name == "wikibigedit" and field.startswith("mhop"))
]


@pytest.mark.parametrize("name", CASES)
def test_row_becomes_an_edit(name: str) -> None:
    read_row, row, expected = CASES[name]
    before = json.dumps(row)
    assert read_row(row, 4, 42) == expected
    assert json.dumps(row) == before


@pytest.mark.parametrize(("name", "field"), REQUIRED)
def test_missing_field(name: str, field: str) -> None:
    read_row, row, _ = CASES[name]
    with pytest.raises(DataError) as caught:
        read_row({k: v for k, v in row.items() if k != field}, 12, 42)
    message = str(caught.value)
    assert message.startswith(f"row 12 (counted from 0): field '{field}' is missing; it must be a non-empty")
    assert all(other in message for other in row if other != field)


WRONG = [
    (None, "is null;"),
    (7, "is 7;"),
    (["x"] * 99, "is ['x', 'x'"),
    ({"a": 1}, "is {'a': 1};"),
    (True, "is True;"),
    ("", "is empty ('');"),
    (" \n", "is blank (' \\n');"),
    ("a\ud800", "half a surrogate pair; it must be Unicode text"),
]


@pytest.mark.parametrize(("value", "says"), WRONG)
@pytest.mark.parametrize(("name", "field"), [case for case in REQUIRED if case[1] != "equiv_prompt"])
def test_wrong_value(name: str, field: str, value: Any, says: str) -> None:
    read_row, row, _ = CASES[name]
    with pytest.raises(DataError) as caught:
        read_row({**row, field: value}, 12, 42)
    message = str(caught.value)
    assert message.startswith(f"row 12 (counted from 0): field '{field}' ")
    assert says in message
    assert "it must be" in message
    assert len(message) < 200


def test_shown_cuts_long_values() -> None:
    assert shown("a" * 500) == "'" + "a" * 56 + "..."


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([], "field 'equiv_prompt' is []; it must list at least one rephrased prompt"),
        (["fine", None], "field 'equiv_prompt'[1] is null; it must be a non-empty string"),
        ([""], "field 'equiv_prompt'[0] is empty ('')"),
        (None, "field 'equiv_prompt' is null"),
        ("", "field 'equiv_prompt' is empty ('')"),
    ],
)
def test_fever_rephrases_that_are_none(value: Any, says: str) -> None:
    with pytest.raises(DataError) as caught:
        READERS["fever"]({**FEVER, "equiv_prompt": value}, 3, 42)
    assert str(caught.value).startswith("row 3 (counted from 0): ")
    assert says in str(caught.value)


def test_fever_draw_depends_on_seed_and_record_alone() -> None:
    row = {**FEVER, "equiv_prompt": [f"form {i}" for i in range(50)]}
    assert READERS["fever"](row, 0, 42).rephrase == READERS["fever"](row, 999, 42).rephrase
    assert len({READERS["fever"](row, 0, seed).rephrase for seed in range(40)}) > 15
    assert len({READERS["fever"]({**row, "alt": str(i)}, 0, 42).rephrase for i in range(40)}) > 15
    # Written down, so that no later change moves every run's rephrased prompts unnoticed.
    assert [READERS["fever"](row, 0, seed).rephrase for seed in (0, 1, 42)] == PINNED


PINNED: list[str] = ["form 0", "form 5", "form 28"]


def test_fever_accepts_one_plain_string() -> None:
    assert READERS["fever"]({**FEVER, "equiv_prompt": "Said so"}, 0, 1).rephrase == "Said so"


@pytest.mark.parametrize("field", ["mhop", "mhop_ans"])
@pytest.mark.parametrize("value", [None, "", "  ", "absent"])
def test_wikibigedit_without_a_second_hop_asks_null(field: str, value: str | None) -> None:
    row: dict[str, Any] = {k: v for k, v in WIKI.items() if not (k == field and value == "absent")}
    if value != "absent":
        row[field] = value
    edit = READERS["wikibigedit"](row, 0, 42)
    assert (edit.mhop, edit.mhop_answer) == ("null", "null")
    assert edit.persona == WIKI["personas"]


@pytest.mark.parametrize("field", ["mhop", "mhop_ans"])
def test_wikibigedit_second_hop_of_another_type(field: str) -> None:
    with pytest.raises(DataError, match=rf"row 5 \(counted from 0\): field '{field}' is 3; it must be"):
        READERS["wikibigedit"]({**WIKI, field: 3}, 5, 42)


def test_every_data_set_of_the_project_is_tried_here() -> None:
    tried = {*READERS, *(name for name, *_ in LAYOUTS)}
    assert tried == {path.stem for path in (PROJECT / "config" / "dataset").glob("*.yaml")}


def test_how_to_get_the_files() -> None:
    published = ("zsre", "fever", "wikibigedit", "ultraeditbench")
    assert all(dataset_config(name).how_to_get == f"python -m data.prepare fetch {name}" for name in published)
    assert dataset_config("facts").how_to_get == "python -m data.facts.build"
    assert KNOWNS.how_to_get == "python -m data.prepare fetch knowns"


NESTED = {
    "case_id": 4,
    "requested_rewrite": {"prompt": "Capital of Valdoria?", "target": {"str": "Port Salis"}},
    "locality": [{"loc": "2+2?", "loc_ans": 4}, {"loc": "3+3?", "loc_ans": 6}],
    "tags": ["a", "b"],
    "a.b": "literal",
}
NESTED_MAP = FieldsConfig(
    prompt="requested_rewrite.prompt",
    answer="requested_rewrite.target.str",
    rephrase=None,
    unrelated="locality.0.loc",
    unrelated_answer="locality.1.loc_ans",
)


def nested(row: dict[str, Any], fields: FieldsConfig = NESTED_MAP) -> Edit:
    return RowReader(DatasetConfig("nested", fields=fields))(row, 4, 42)


def test_dotted_paths_lead_into_nested_records() -> None:
    assert nested(NESTED) == Edit(4, "Capital of Valdoria?", "Port Salis", None, "2+2?", "6")
    assert look_up(NESTED, "a.b") == "literal", "a field whose own name has a dot comes first"
    for path in ("locality.2.loc", "locality.x.loc", "locality.-1.loc", "case_id.0", "requested_rewrite.", ""):
        assert not isinstance(look_up(NESTED, path), str | int), path


def test_a_wrong_path_says_which_there_are() -> None:
    slip = FieldsConfig(prompt="requested_rewrite.promt")
    with pytest.raises(DataError) as caught:
        nested(NESTED, slip)
    assert str(caught.value) == (
        "row 4 (counted from 0): field 'requested_rewrite.promt' is missing; it must be a non-empty string (fields "
        "found: 'case_id, requested_rewrite.prompt, requested_rewrite.target.str, locality.0.loc, locality.0.loc_ans, "
        "tags, a.b'); set dataset.fields.prompt to the field that holds it"
    )


def test_paths_go_no_deeper_than_anyone_nests() -> None:
    row: dict[str, Any] = {"end": 1}
    for _ in range(2000):
        row = {"in": row}
    assert list(paths(row)) == ["in.in.in.in.in"]


def test_a_suffix_for_unrelated_prompts_makes_custom_ask_what_zsre_asks() -> None:
    own = {"prompt": "src", "answer": "ans", "unrelated": "loc", "unrelated_answer": "loc_ans"}
    custom = DatasetConfig("custom", fields=FieldsConfig(**own), unrelated_suffix="?")
    assert RowReader(custom)(ZSRE, 4, 42) == PLAIN
    assert READERS["zsre"](ZSRE, 4, 42) == replace(PLAIN, subject="Wim Ilmarin")
    assert RowReader(custom)({"src": "Born in", "ans": "Bergen"}, 4, 42).unrelated is None


def test_of_a_list_of_rephrasings_all_are_asked_or_one_is_drawn() -> None:
    row = CUSTOM | {"rephrase": [" one ", "two"]}
    asked = [prompt for kind, prompt, _ in READERS["custom"](row, 0, 42).probes() if kind == "rephrase"]
    assert asked == ["one", "two"]
    drawing = RowReader(DatasetConfig("custom", draw_rephrase=True))
    assert {drawing(row, 0, seed).rephrase for seed in range(20)} == {"one", "two"}


def test_a_second_hop_that_is_missing_is_left_out_or_replaced_by_a_word() -> None:
    fields = FieldsConfig(mhop="mhop", mhop_answer="mhop_ans")
    plain = DatasetConfig("custom", fields=fields)
    assert RowReader(plain)(CUSTOM, 4, 42) == PLAIN
    assert RowReader(plain)(CUSTOM | WIKI, 4, 42).mhop == WIKI["mhop"]
    with pytest.raises(DataError, match=r"has the field 'mhop' \(dataset.fields.mhop\) but not 'mhop_ans'"):
        RowReader(plain)(CUSTOM | {"mhop": "Where then?"}, 4, 42)
    word = DatasetConfig("custom", fields=fields, missing_mhop="nothing")
    assert RowReader(word)(CUSTOM, 4, 42).mhop == RowReader(word)(CUSTOM, 4, 42).mhop_answer == "nothing"


@pytest.mark.parametrize("name", ["zsre", "custom"])
def test_white_space_stays_where_a_set_is_read_exactly(name: str) -> None:
    edit = READERS[name]({**CUSTOM, **ZSRE, "ans": " Bergen ", "answer": " Bergen "}, 4, 42)
    assert edit.answer == (" Bergen " if name == "zsre" else "Bergen")


@pytest.fixture
def zsre_file(tmp_path: Path) -> Path:
    path = tmp_path / "zsre.json"
    path.write_text(json.dumps([{**ZSRE, "ans": f"answer {i}"} for i in range(10)]))
    return path


def answers(records: RecordFile) -> list[str]:
    return [edit.answer for edit in records]


@pytest.mark.parametrize(("limit", "count"), [(None, 10), (0, 0), (3, 3), (10, 10), (99, 10)])
def test_record_file(zsre_file: Path, limit: int | None, count: int) -> None:
    records = RecordFile(zsre_file, READERS["zsre"], 42, limit)
    assert answers(records) == answers(records) == [f"answer {i}" for i in range(count)]
    assert [edit.row for edit in records] == list(range(count))
    assert len(records) == len(records) == count


def test_record_file_limit_is_no_negative_number(zsre_file: Path) -> None:
    with pytest.raises(ValueError, match="must be None or an integer: 0 <= x"):
        len(RecordFile(zsre_file, READERS["zsre"], 42, -1))


def test_record_file_names_path_row_and_field(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(ZSRE) + "\n" + json.dumps({**ZSRE, "ans": None}) + "\n")
    records = iter(RecordFile(path, READERS["zsre"], 42))
    assert next(records).answer == "Bergen"
    with pytest.raises(DataError) as caught:
        next(records)
    assert str(caught.value) == (f"{path}: row 1 (counted from 0): field 'ans' is null; it must be a non-empty string")


def test_record_file_that_is_not_there_says_how_to_get_it(tmp_path: Path) -> None:
    records = RecordFile(tmp_path / "zsre.json", READERS["zsre"], 42)
    for use in (list, len):
        with pytest.raises(DataError, match="no such file; get it with: python -m data.prepare fetch zsre"):
            use(records)


def need(path: Path, num_seq: int, n_edits: int) -> RecordFile:
    cfg = replace(dataset_config("zsre"), n_edits=n_edits)
    return Source(cfg, 42).records(str(path), num_seq, "num_seq_zsre")


def test_require_gives_the_edits_that_are_needed(zsre_file: Path) -> None:
    assert len(answers(need(zsre_file, 3, 3))) == 9
    assert len(answers(need(zsre_file, 2, 5))) == 10


@pytest.mark.parametrize(
    ("num_seq", "n_edits", "says"),
    [
        (4, 3, "num_seq_zsre x n_edits = 4 x 3 = 12 are needed; set num_seq_zsre to 3 or less"),
        (1, 11, "= 1 x 11 = 11 are needed; n_edits is too large: it must be 10 or less"),
    ],
)
def test_require_of_too_few(zsre_file: Path, num_seq: int, n_edits: int, says: str) -> None:
    with pytest.raises(DataError) as caught:
        need(zsre_file, num_seq, n_edits)
    assert str(caught.value).startswith(f"{zsre_file}: holds 10 records, but ")
    assert says in str(caught.value)


def test_require_of_an_empty_array(tmp_path: Path) -> None:
    (tmp_path / "none.json").write_text("[]")
    with pytest.raises(DataError, match="holds 0 records, but .*; fetch or build the file again"):
        need(tmp_path / "none.json", 1, 1)


def test_require_validates_only_what_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "late.json"
    path.write_text(json.dumps([ZSRE, ZSRE, {**ZSRE, "src": 3}]))
    assert len(need(path, 2, 1)) == 2
    with pytest.raises(DataError, match=r"late.json: row 2 \(counted from 0\): field 'src' is 3"):
        need(path, 3, 1)


def test_importing_data_is_light() -> None:
    code = (
        "import sys, data.prepare, data.source, data.fields, data.fetch\n"
        "print([m for m in ('torch', 'transformers', 'datasets') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
