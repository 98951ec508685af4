"""How a record of any data set becomes an edit: by the field map of its yaml (dataset.fields)."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from config.schema import DatasetConfig, FieldsConfig

from .base import OWN_ANSWER, DataError, Edit, Probe, as_text, missing, place, shown, with_probes
from .paths import ABSENT, find, look_up, paths

SHARED = ("rephrase", "persona", "attribute", "generation")
"""Prompts that the edit's own answer answers."""
WORDS = {"rephrase": "rephrased"}
FIELD_KEYS = [key.name for key in fields(FieldsConfig)]


class RowReader:
    """Makes the rows of one data set edits: reader(row, its index counted from 0, seed).

    `keys` is the name under which messages say how a field is named, "" where it cannot be. Calling it raises
    DataError with row, field and value, what would be right, and the key to set.
    A record whose prompt is not at the first alternative of fields.prompt but at a later one is of another layout:
    what is said of the published one (exact, required, unrelated_suffix, missing_mhop) does not hold there.
    """

    def __init__(self, cfg: DatasetConfig, keys: str = "dataset.fields") -> None:
        self.cfg, self.keys = cfg, keys
        self.fields: dict[str, str | None] = asdict(cfg.fields)
        self.needed = {"prompt", "answer", *cfg.required}
        self.about = [key for key in ("subject", "old_answer") if self.fields[key] is not None]
        self.shared = [kind for kind in SHARED if self.fields[kind] is not None]
        self.pairs = [kind for kind in OWN_ANSWER if self.fields[kind] is not None]
        first, _, others = cfg.fields.prompt.partition("|")
        rules: dict[str, Any] = {"exact": False, "required": [], "unrelated_suffix": "", "missing_mhop": None}
        other = replace(cfg, fields=replace(cfg.fields, prompt=others), **rules)
        self.first, self.other = first, RowReader(other, keys) if others else None

    def __call__(self, row: Mapping[str, Any], index: int, seed: int) -> Edit:
        if self.other and self._elsewhere(row, self.other.cfg.fields.prompt):
            return self.other(row, index, seed)
        prompt, answer = self._text(row, "prompt", index), self._text(row, "answer", index)
        assert prompt is not None and answer is not None, "both are needed"
        probes: list[Probe] = []
        for kind in self.shared:
            texts = self._texts(row, kind, index)
            if kind == "rephrase" and self.cfg.draw_rephrase and len(texts) > 1:
                # Seeded by the record itself: the same fact gets the same rephrasing wherever it stands in the file.
                texts = [random.Random(f"{seed}|{prompt}|{answer}").choice(texts)]
            probes += [(kind, text, answer) for text in texts]
        for kind in self.pairs:
            probes += self._pairs(row, kind, index)
        more: dict[str, Any] = {key: self._text(row, key, index) for key in self.about}
        if self.fields["aliases"] is not None:
            more["aliases"] = tuple(self._texts(row, "aliases", index))
        if self.cfg.subject_mark and self.cfg.subject_mark in prompt:
            prompt = self._filled(prompt, self.cfg.subject_mark, more.get("subject"), index)
        return with_probes(index, prompt, answer, probes, **more)

    def _elsewhere(self, row: Mapping[str, Any], others: str) -> bool:
        return look_up(row, self.first) is ABSENT and find(row, others)[1] is not ABSENT

    def _filled(self, prompt: str, mark: str, subject: str | None, index: int) -> str:
        """The prompt with the subject in the place that is kept for it."""
        if subject is None:
            right = f"which is missing; name its field as {self.keys}.subject"
            raise DataError(f"{place(index)}: prompt {shown(prompt)} has a place ({mark}) for its subject, {right}")
        return prompt.replace(mark, subject)

    def _found(self, row: Mapping[str, Any], key: str, index: int) -> tuple[str, Any]:
        """The field that `key` names and its value, None where a record may lack it and does."""
        field = self.fields[key]
        if field is None:
            return "", None
        name, value = find(row, field)
        if _blank(value) and key not in self.needed:
            return name, None
        if value is ABSENT:
            advice = f"; set {self.keys}.{key} to the field that holds it" if self.keys else ""
            raise DataError(missing(list(paths(row)), name, index) + advice)
        return name, value

    def _text(self, row: Mapping[str, Any], key: str, index: int) -> str | None:
        """The text that `key` names; an optional one may be the first of a list."""
        name, value = self._found(row, key, index)
        if key not in self.needed:
            value = _first(value)
            if value is None:
                return None
        return self._written(value, f"field {name!r}", index, number=key.endswith("answer"))

    def _texts(self, row: Mapping[str, Any], key: str, index: int) -> list[str]:
        """The texts that `key` names: one, several, or none."""
        name, value = self._found(row, key, index)
        if value is None and key not in self.needed:
            return []
        drawn = key == "rephrase" and self.cfg.draw_rephrase
        if not isinstance(value, list) or (self.cfg.exact and not drawn):
            return [self._written(value, f"field {name!r}", index)]
        if not value and (drawn or key in self.needed):
            raise DataError(
                f"{place(index)}: field {name!r} is []; it must list at least one {WORDS.get(key, key)} prompt"
            )
        return [
            self._written(entry, f"field {name!r}[{i}]", index) for i, entry in enumerate(value) if entry is not ABSENT
        ]

    def _pairs(self, row: Mapping[str, Any], kind: str, index: int) -> Iterator[Probe]:
        """Prompts of a kind, each with its own answer, or all with one; of several answers to a prompt the first."""
        other, exact, suffix = OWN_ANSWER[kind], self.cfg.exact, self.cfg.unrelated_suffix
        (name, asked), (label, said) = self._found(row, kind, index), self._found(row, other, index)
        if self.cfg.missing_mhop is not None and kind == "mhop" and None in (asked, said):
            asked = said = self.cfg.missing_mhop
        several = isinstance(asked, list) and not exact
        prompts = asked if several else [asked]
        answers = said if several and isinstance(said, list) else [said] * len(prompts)
        if len(prompts) != len(answers):
            lists = f"field {name!r} lists {len(prompts)} prompts, but {label!r} {len(answers)} answers"
            raise DataError(f"{place(index)}: {lists}; it must be one each, or one for all")
        if not prompts and kind in self.needed:
            raise DataError(f"{place(index)}: field {name!r} is []; it must list at least one prompt")
        for i, (one, two) in enumerate(zip(prompts, answers if exact else map(_first, answers), strict=True)):
            at = f"[{i}]" if several else ""
            if kind not in self.needed and _blank(one) and _blank(two):
                continue
            if kind not in self.needed and _blank(one) != _blank(two):
                there, lacks = ((kind, name), (other, label)) if _blank(two) else ((other, label), (kind, name))
                raise DataError(
                    f"{place(index)}: has the field {there[1]!r}{at} ({self.keys}.{there[0]}) but not "
                    f"{lacks[1]!r}{at} ({self.keys}.{lacks[0]}); a row must have both or neither"
                )
            text = self._written(one, f"field {name!r}{at}", index)
            answer = self._written(two, f"field {label!r}{at}", index, number=True)
            yield kind, text + suffix if kind == "unrelated" else text, answer

    def _written(self, value: object, name: str, index: int, *, number: bool = False) -> str:
        if self.cfg.exact:
            return as_text(value, name, index)
        if number and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return json.dumps(value)
        return as_text(value, name, index).strip()


def _blank(value: object) -> bool:
    return value is None or value is ABSENT or (isinstance(value, str) and not value.strip())


def _first(value: Any) -> Any:
    """The first of a list, of lists too; None of an empty one."""
    while isinstance(value, list):
        value = value[0] if value else None
    return value


def held(edit: Edit) -> set[str]:
    """The keys of a field map for which an edit has something."""
    kinds = {kind for kind, *_ in edit.more}
    kinds |= {OWN_ANSWER[kind] for kind in kinds & OWN_ANSWER.keys()}
    return kinds | {key for key in FIELD_KEYS if getattr(edit, key, None)}


def check_named_fields(edits: Iterable[Edit], cfg: DatasetConfig, path: Path) -> None:
    """Refuse an optional field that was named and that no record of the file has: a slip would leave a score out.

    One with alternatives may be missing (`persona|`: or nothing).
    Raises DataError, naming the file, the key and its value.
    """
    names, usual = asdict(cfg.fields), asdict(FieldsConfig())
    named = {key for key in FIELD_KEYS if names[key] not in (None, usual[key]) and "|" not in names[key]}
    named -= {"prompt", "answer", *cfg.required}
    for edit in edits if named else ():
        named -= held(edit)
        if not named:
            return
    for key in sorted(named):
        raise DataError(
            f"{path}: dataset.fields.{key}={names[key]}: no record has this field; "
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
