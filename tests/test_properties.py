"""Whatever stands in a record file or on the command line: a run is refused with words, or it is right."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from config.check import ConfigError, check_override_names, known_keys
from config.compose import compose_config, dataset_config
from config.schema import BadRow, Config, register
from data.base import DataError, Edit
from data.batches import context_check, step_batches
from data.source import Source
from lifelong import run as lifelong_run
from lifelong import session
from tests.test_data_readers import CASES, READERS
from tests.tiny import PROJECT, tiny_tokenizer, tiny_words

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)

ODD = st.sampled_from(
    [
        *("", " ", "\n", "\x00", "\u200b", "\ufeff", "e\u0301", "\U0001f469\u200d\U0001f680", "\ud800", "a\udc00b"),
        *("\u202eabc", "null", "NaN", "<s>", "</s>", "<unk>", "a" * 5000, "\u00a0", "\u3000", "\x1b[31m"),
    ]
)
TEXT = st.text(max_size=20) | ODD
SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
VALUE = st.recursive(SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3))
NAMES = sorted(READERS)
data_set = cache(dataset_config)


@st.composite
def spoiled_rows(draw: st.DrawFn) -> tuple[str, Any]:
    """A data set's name and a row of it in which anything may be missing, wrong or odd."""
    name = draw(st.sampled_from(NAMES))
    row = dict(CASES[name][1])
    for field in draw(st.lists(st.sampled_from(sorted(row)), max_size=2)):
        row.pop(field, None)
    return name, row | draw(
        st.dictionaries(st.sampled_from(sorted(CASES[name][1])) | st.text(max_size=20), VALUE | TEXT, max_size=3)
    )


def read(name: str, row: Any, index: int) -> Edit | None:
    """The row's edit; None where it is refused in words that name it."""
    try:
        return READERS[name](row, index, 42)
    except DataError as error:
        assert f"row {index} (counted from 0)" in str(error) and len(str(error)) < 1000
        return None


@QUICK
@given(spoiled_rows(), st.integers(0, 10**7))
def test_a_row_is_an_edit_or_refused_by_its_number(case, index):
    name, row = case
    edit = read(name, row, index)
    if edit is not None:
        optional = [edit.rephrase, edit.unrelated, edit.unrelated_answer]
        assert name == "custom" or None not in optional
        assert (edit.unrelated is None) == (edit.unrelated_answer is None)
        fields = [edit.prompt, edit.answer, *(text for text in optional if text is not None)]
        assert all(field.encode() and not field.isspace() for field in fields) and edit.row == index


@QUICK
@given(st.lists(spoiled_rows(), min_size=1, max_size=4), st.sampled_from([None, 8, 512]))
def test_what_the_check_lets_through_can_be_batched(cases, context):
    edits = [edit for index, (name, row) in enumerate(cases) if (edit := read(name, row, index))]
    tokenizer = tiny_tokenizer("tiny-llama")
    complaints = context_check(tokenizer, context)(edits)
    for edit, error in zip(edits, complaints, strict=True):
        assert error is None or f"row {edit.row} (counted from 0)" in str(error)
    good = [edit for edit, error in zip(edits, complaints, strict=True) if error is None]
    if good:
        batches = step_batches(tokenizer, good, 2)
        assert context is None or all(batch.input_ids_BT.shape[1] <= context for batch in batches.edit)


def source(path: Path, name: str, *, skip: bool) -> Source:
    """A source that asks for two records of the file."""
    on_bad_row = BadRow.skip if skip else BadRow.error
    return Source(replace(data_set(name), n_edits=1, on_bad_row=on_bad_row), 42)


@cache
def compose_base() -> Config:
    """A right configuration, to be copied before it is spoiled."""
    return compose_config(tiny_words())


def check_records(path: Path, name: str, *, skip: bool) -> None:
    """Read two records as a run would; every refusal names the file."""
    try:
        found = source(path, name, skip=skip).records(str(path), 2, "num_seq")
        assert len(list(found)) == 2 and list(found) == list(found)
    except DataError as error:
        assert str(path) in str(error)


@QUICK
@given(st.lists(spoiled_rows().map(lambda case: case[1]) | VALUE, max_size=4), st.sampled_from(NAMES), st.booleans())
def test_a_file_of_odd_rows_is_read_or_refused_by_its_name(tmp_path, rows, name, skip):
    array, lines = tmp_path / "rows.json", tmp_path / "rows.jsonl"
    array.write_text(json.dumps(rows))
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    check_records(array, name, skip=skip)
    check_records(lines, name, skip=skip)


WHOLE = json.dumps([CASES["zsre"][1]] * 3).encode()
TABLE = b"prompt,answer\n" + b'"Where, ""exactly"", was he born?",Bergen\n' * 8


@QUICK
@given(st.binary(max_size=6), st.integers(0, len(WHOLE)), st.integers(0, len(WHOLE)), st.booleans())
@example(b"[" * 3_000, 0, len(WHOLE), False)
@example(b'{"src": ' * 3_000, 0, len(WHOLE), False)
@example(b"1" * 10_000, 1, 1, False)
@example(b"\xef\xbb\xbf", 0, 0, False)
@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".json.gz", ".json.xz"])
def test_a_damaged_file_is_read_or_refused_by_its_name(tmp_path, suffix, junk, start, end, skip):
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(WHOLE[:start] + junk + WHOLE[end:])
    check_records(path, "zsre", skip=skip)


@QUICK
@given(st.binary(max_size=6), st.integers(0, len(TABLE)), st.integers(0, len(TABLE)), st.booleans())
@example(b"\xef\xbb\xbf", 0, 0, False)
@example(b'"', 20, 20, False)
@example(b"\xff\xfe", 3, 3, True)
@example(b"\x00", 3, 3, True)
def test_a_damaged_table_is_read_or_refused_by_its_name(tmp_path, junk, start, end, skip):
    path = tmp_path / "rows.csv"
    path.write_bytes(TABLE[:start] + junk + TABLE[end:])
    check_records(path, "custom", skip=skip)


KEYS = [key for key in known_keys() if key not in ("dataset", "model", "editor", "eval", "downstream", "checkpoint")]
WORD = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=12)
NUMBER = st.integers().map(str) | st.floats().map(str)
SPECIAL = st.sampled_from(
    ["null", "???", "${nope}", "${oc.env:NOPE}", "[1,2]", "{a: 1}", "true", "''", "x" * 300, "a/b"]
)


class Accepted(Exception):
    """The run would now load its model."""


@pytest.fixture(autouse=True)
def nothing_loads(monkeypatch, tmp_path):
    """A configuration that is not refused ends where the model would be loaded; its folders are made elsewhere."""
    monkeypatch.chdir(tmp_path)

    def load_model(*_: object) -> None:
        raise Accepted

    monkeypatch.setattr(session, "load_model", load_model)


def attempt(words: list[str], run_dir: Path) -> str | None:
    """What a command line is refused with; None if it is not. Any other exception goes through."""
    try:
        check_override_names(words)
        cfg = OmegaConf.to_object(compose("config", overrides=words))
        lifelong_run.run(cfg, run_dir)
    except Accepted:
        return None
    except (ConfigError, DataError, HydraException, OmegaConfBaseException) as error:
        cause = f" {error.__cause__}" if error.__cause__ else ""
        return str(error) + cause
    return None


@pytest.fixture(scope="module")
def hydra_is_ready():
    """Hydra started once for all the command lines of this file."""
    register()
    with initialize_config_dir(str(PROJECT / "config"), version_base="1.3"):
        yield


@settings(QUICK, max_examples=50)
@given(st.sampled_from(KEYS), WORD | NUMBER | SPECIAL)
def test_a_word_is_accepted_or_refused_by_its_key(hydra_is_ready, tmp_path, key, value):
    said = attempt([*tiny_words("editor=stableedit"), f"{key}={value}"], tmp_path / "run")
    if said is not None:
        leaf = key.rpartition(".")[2]
        assert leaf in said or (leaf.endswith("_path") and "file" in said), said


@settings(QUICK, max_examples=40)
@given(WORD.filter(lambda word: not word.lstrip("+").startswith(("-", "~", "hydra"))), WORD)
def test_any_key_at_all_is_accepted_or_refused_by_its_name(hydra_is_ready, tmp_path, key, value):
    said = attempt([*tiny_words(), f"{key}={value}"], tmp_path / "run")
    assert said is not None and (key.partition("=")[0].lstrip("+") in said), said


REALS = [key for key in KEYS if isinstance(OmegaConf.select(OmegaConf.structured(compose_base()), key), int | float)]
RANGE = st.integers(-3, 3) | st.integers() | st.floats() | st.sampled_from([1e-300, 1e300, math.inf, math.nan])


@settings(QUICK, max_examples=150)
@given(st.sampled_from(REALS), RANGE)
def test_a_number_out_of_range_is_refused_by_its_key(tmp_path, key, value):
    cfg = copy.deepcopy(compose_base())
    group, _, name = key.rpartition(".")
    node = getattr(cfg, group) if group else cfg
    kind = type(getattr(node, name))
    if kind is not float and (isinstance(value, float)):
        return  # Hydra's business: see the words above
    setattr(node, name, kind(value))
    try:
        lifelong_run.run(cfg, tmp_path / "run")
    except Accepted:
        return
    except (ConfigError, DataError) as error:
        assert key in str(error) or name in str(error)


@pytest.mark.parametrize("key", ["valid_path", "train_path"])
def test_a_path_too_long_for_the_system_is_refused(tmp_path, key):
    cfg = copy.deepcopy(compose_base())
    setattr(cfg.dataset, key, "x" * 300 + ".json")
    with pytest.raises(DataError, match="cannot be looked for .*name too long"):
        lifelong_run.run(cfg, tmp_path / "run")
