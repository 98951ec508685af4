"""Templates of pages, and what commands write into README.md between markers of their name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from config.check import ConfigError
from files import write_whole


def environment(**words: Any) -> Environment:
    """This folder's templates, which know these words; an unknown one is an error."""
    loader = FileSystemLoader(Path(__file__).parent)
    found = Environment(
        loader=loader, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined
    )
    found.globals |= words
    return found


def marks(name: str, command: str) -> tuple[str, str]:
    """The lines that stand before and after."""
    return f"<!-- {name}: written by {command} -->", f"<!-- {name} end -->"


def put_between(readme: Path, begin: str, end: str, block: str) -> None:
    """Put a block between two lines, in the place of what is there; ConfigError where they are missing."""
    found = re.fullmatch(f"(.*{begin}\n).*({end}.*)", readme.read_text(encoding="utf-8"), re.DOTALL)
    if not found:
        raise ConfigError(f"{readme}: lacks the lines {begin} and {end}")
    write_whole(readme, found[1] + block + found[2])
