"""What commands write into README.md, between markers of their name."""

from __future__ import annotations

import re
from pathlib import Path

from config.check import ConfigError
from files import write_whole


def marks(name: str, command: str) -> tuple[str, str]:
    """The lines that stand before and after."""
    return f"<!-- {name}: written by {command} -->", f"<!-- {name} end -->"


def put_between(readme: Path, begin: str, end: str, block: str) -> None:
    """Put a block between two lines, in the place of what is there; ConfigError where they are missing."""
    found = re.fullmatch(f"(.*{begin}\n).*({end}.*)", readme.read_text(encoding="utf-8"), re.DOTALL)
    if not found:
        raise ConfigError(f"{readme}: lacks the lines {begin} and {end}")
    write_whole(readme, found[1] + block + found[2])
