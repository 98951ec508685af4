"""Your own facts: any record file, its fields named in the config (dataset=custom dataset.fields.prompt=...)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from config.schema import FieldsConfig

from .base import DataError, Edit, as_text, missing, place


def read_row(row: dict[str, Any], index: int, seed: int, fields: FieldsConfig | None = None) -> Edit:
    """A row as an edit, by the field map; white space around prompts and answers is dropped.

    A rephrased prompt, and an unrelated prompt with its answer, may be missing, null or blank.
    An answer may be a number: it is written as JSON writes it.

    Raises:
        DataError: names row, field, the fields that the row has, and the key to set.
    """
    fields = fields or FieldsConfig()
    unrelated = _optional(row, fields.unrelated, index)
    unrelated_answer = _optional(row, fields.unrelated_answer, index, number=True)
    if (unrelated is None) != (unrelated_answer is None):
        there, lacks = (
            ("unrelated", "unrelated_answer") if unrelated_answer is None else ("unrelated_answer", "unrelated")
        )
        raise DataError(
            f"{place(index)}: has the field {getattr(fields, there)!r} (dataset.fields.{there}) but not "
            f"{getattr(fields, lacks)!r} (dataset.fields.{lacks}); a row must have both or neither"
        )
    return Edit(
        row=index,
        prompt=_needed(row, "prompt", fields.prompt, index),
        answer=_needed(row, "answer", fields.answer, index, number=True),
        rephrase=_optional(row, fields.rephrase, index),
        unrelated=unrelated,
        unrelated_answer=unrelated_answer,
    )


def _needed(row: dict[str, Any], key: str, field: str, index: int, *, number: bool = False) -> str:
    if field not in row:
        advice = f"set dataset.fields.{key} to the field that holds the {key}"
        raise DataError(f"{missing(row, field, index)}; {advice}")
    return _text(row[field], field, index, number=number)


def _optional(row: dict[str, Any], field: str | None, index: int, *, number: bool = False) -> str | None:
    value = None if field is None else row.get(field)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    return _text(value, str(field), index, number=number)


def _text(value: object, field: str, index: int, *, number: bool) -> str:
    if number and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return json.dumps(value)
    return as_text(value, f"field {field!r}", index).strip()


def check_named_fields(edits: Iterable[Edit], fields: FieldsConfig, path: Path) -> None:
    """Refuse an optional field that was named and that no record has: a slip of the pen would leave a score out.

    Raises:
        DataError: names the file, the key and its value.
    """
    usual = FieldsConfig()
    named = {key for key in ("rephrase", "unrelated") if getattr(fields, key) not in (None, getattr(usual, key))}
    for edit in edits if named else ():
        named = {key for key in named if getattr(edit, key) is None}
        if not named:
            return
    for key in sorted(named):
        raise DataError(
            f"{path}: dataset.fields.{key}={getattr(fields, key)}: no record has this field; "
            "name a field of the file, or null for none"
        )
