"""The data sets by name: how their rows are read and how their files are had."""

from __future__ import annotations

from functools import partial

from config.schema import FieldsConfig

from . import custom, embedded, fever, ultraeditbench, wikibigedit, zsre
from .base import ReadRow

READERS: dict[str, ReadRow] = {
    "zsre": zsre.read_row,
    "fever": fever.read_row,
    "wikibigedit": wikibigedit.read_row,
    "ultraeditbench": ultraeditbench.read_row,
    "facts": embedded.read_row,
    "custom": custom.read_row,
}


def reader(name: str, fields: FieldsConfig) -> ReadRow:
    """How a data set's rows become edits; only `custom` looks at the field map."""
    return partial(custom.read_row, fields=fields) if name == "custom" else READERS[name]


HOW_TO_GET: dict[str, str] = {
    "zsre": "python -m data.prepare fetch zsre",
    "fever": "python -m data.prepare fetch fever",
    "wikibigedit": "python -m data.prepare fetch wikibigedit",
    "ultraeditbench": "python -m data.prepare fetch ultraeditbench",
    "facts": "python -m data.facts.build",
    "custom": "",
    "knowns": "python -m data.prepare fetch knowns",
}
"""The command that brings a data set's files, for the message about a file that is not there; "" for none."""

FACTS_FILES = ("data/facts/facts_train.jsonl.xz", "data/facts/facts_eval.jsonl.xz")
"""The embedded training and evaluation records, below the project's folder."""
