"""The data sets by name: how their rows are read and how their files are had."""

from __future__ import annotations

from . import embedded, fever, ultraeditbench, wikibigedit, zsre
from .base import ReadRow

READERS: dict[str, ReadRow] = {
    "zsre": zsre.read_row,
    "fever": fever.read_row,
    "wikibigedit": wikibigedit.read_row,
    "ultraeditbench": ultraeditbench.read_row,
    "facts": embedded.read_row,
}

HOW_TO_GET: dict[str, str] = {
    "zsre": "python -m data.prepare fetch zsre",
    "fever": "python -m data.prepare fetch fever",
    "wikibigedit": "python -m data.prepare fetch wikibigedit",
    "ultraeditbench": "python -m data.prepare fetch ultraeditbench",
    "facts": "python -m data.facts.build",
    "knowns": "python -m data.prepare fetch knowns",
}
"""The command that brings a data set's files, for the message about a file that is not there."""
