"""How a record of any data set becomes an edit: by the field map of its yaml (dataset.fields)."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from config.schema import DatasetConfig, FieldsConfig

from .base import DataError, Edit, as_text, missing, place, shown

PAIRS = {"unrelated": "unrelated_answer", "mhop": "mhop_answer"}
"""Prompts with an answer of their own: a record has both or neither."""
ABSENT = object()
"""What stands at a path that a record does not have."""


class RowReader:
    """Makes the rows of one data set edits: reader(row, its index counted from 0, seed).

    `keys` is the name under which messages say how a field is named, "" where it cannot be. Calling it raises
    DataError with row, field and value, what would be right, and the key to set.
    """

    def __init__(self, cfg: DatasetConfig, keys: str = "dataset.fields") -> None:
        self.cfg, self.keys = cfg, keys
        self.fields: dict[str, str | None] = asdict(cfg.fields)
        self.needed = {"prompt", "answer", *cfg.required}

    def __call__(self, row: Mapping[str, Any], index: int, seed: int) -> Edit:
        texts: dict[str, Any] = {key: self._text(row, key, index) for key in self.fields if key != "rephrase"}
        # Seeded by the record itself: the same fact gets the same rephrasing wherever it stands in the file.
        texts["rephrase"] = self._rephrase(row, index, f"{seed}|{texts['prompt']}|{texts['answer']}")
        if self.cfg.missing_mhop is not None and None in (texts["mhop"], texts["mhop_answer"]):
            texts["mhop"] = texts["mhop_answer"] = self.cfg.missing_mhop
        for key, other in PAIRS.items():
            if (texts[key] is None) != (texts[other] is None):
                there, lacks = (key, other) if texts[other] is None else (other, key)
                raise DataError(
                    f"{place(index)}: has the field {self.fields[there]!r} ({self.keys}.{there}) but not "
                    f"{self.fields[lacks]!r} ({self.keys}.{lacks}); a row must have both or neither"
                )
        if texts["unrelated"] is not None:
            texts["unrelated"] += self.cfg.unrelated_suffix
        return Edit(index, **texts)

    def _text(self, row: Mapping[str, Any], key: str, index: int) -> str | None:
        """The text that `key` names, None where a record may lack it and does."""
        field = self.fields[key]
        value = ABSENT if field is None else look_up(row, field)
        if key not in self.needed and (value in (None, ABSENT) or (isinstance(value, str) and not value.strip())):
            return None
        if value is ABSENT:
            advice = f"; set {self.keys}.{key} to the field that holds it" if self.keys else ""
            raise DataError(missing(list(paths(row)), str(field), index) + advice)
        return self._written(value, f"field {field!r}", index, number=key.endswith("answer"))

    def _rephrase(self, row: Mapping[str, Any], index: int, seed: str) -> str | None:
        field = self.fields["rephrase"]
        found = None if field is None else look_up(row, field)
        if not isinstance(found, list):
            return self._text(row, "rephrase", index)
        if not found or not self.cfg.draw_rephrase:
            one = "be a non-empty string (dataset.draw_rephrase=true draws one of a list)"
            right = "list at least one rephrased prompt" if self.cfg.draw_rephrase else one
            raise DataError(f"{place(index)}: field {field!r} is {shown(found)}; it must {right}")
        entries = [self._written(entry, f"field {field!r}[{i}]", index) for i, entry in enumerate(found)]
        return random.Random(seed).choice(entries)

    def _written(self, value: object, name: str, index: int, *, number: bool = False) -> str:
        if self.cfg.exact:
            return as_text(value, name, index)
        if number and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return json.dumps(value)
        return as_text(value, name, index).strip()


def look_up(row: Mapping[str, Any], path: str) -> Any:
    """The value of a field, or at a dotted path into nested objects and lists (`locality.0.loc`); else ABSENT."""
    if path in row:
        return row[path]
    value: Any = row
    for part in path.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return ABSENT
    return value


def paths(row: Mapping[str, Any], depth: int = 4, prefix: str = "") -> Iterator[str]:
    """The fields of a record as a field map would name them; a list of objects by its first."""
    for name, value in row.items():
        inner = {"0": value[0]} if isinstance(value, list) and value and isinstance(value[0], Mapping) else value
        if depth and inner and isinstance(inner, Mapping):
            yield from paths(inner, depth - 1, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def check_named_fields(edits: Iterable[Edit], cfg: DatasetConfig, path: Path) -> None:
    """Refuse an optional field that was named and that no record of the file has: a slip would leave a score out.

    Raises DataError, naming the file, the key and its value.
    """
    fields, usual = asdict(cfg.fields), asdict(FieldsConfig())
    named = {key for key in fields if fields[key] not in (None, usual[key])} - {"prompt", "answer", *cfg.required}
    for edit in edits if named else ():
        named = {key for key in named if getattr(edit, key) is None}
        if not named:
            return
    for key in sorted(named):
        raise DataError(
            f"{path}: dataset.fields.{key}={fields[key]}: no record has this field; "
            "name a field of the file, or null for none"
        )


KNOWNS = DatasetConfig(
    name="knowns",
    exact=True,  # an answer may begin with a space
    how_to_get="python -m data.prepare fetch knowns",
    fields=FieldsConfig(answer="prediction", rephrase=None, unrelated=None, unrelated_answer=None),
)
"""known_1000.json: prompts a model completes rightly before any edit, to see what editing makes it forget."""

read_known = RowReader(KNOWNS, keys="")
"""How its row is read: a prompt, and the continuation published with it as its answer."""
