"""Hand-written choices and facts that GeoNames does not hold in a usable form (world.toml), and all other tables."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any


def listed(text: str) -> tuple[str, ...]:
    """The words of a table that is written as running text."""
    return tuple(text.split())


def tables(name: str) -> dict[str, Any]:
    """The tables of NAME.toml in this folder."""
    return tomllib.loads((Path(__file__).parent / f"{name}.toml").read_text(encoding="utf-8"))


_WORLD = tables("world")
ANSWER_COUNTRIES = listed(_WORLD["answer_countries"])
EDITED_COUNTRIES = listed(_WORLD["edited_countries"])
NAME_FIXES: dict[str, str] = _WORLD["name_fixes"]
CAPITAL_FIXES: dict[str, str] = _WORLD["capital_fixes"]
TAKES_ARTICLE = frozenset(_WORLD["takes_article"])
MANY_CAPITALS = frozenset(listed(_WORLD["many_capitals"]))
TWO_CONTINENTS = frozenset(listed(_WORLD["two_continents"]))
CURRENCIES: dict[str, str] = _WORLD["currencies"]
MANY_CURRENCIES = frozenset(listed(_WORLD["many_currencies"]))
LONE_CURRENCIES: dict[str, str] = _WORLD["lone_currencies"]
CONTINENTS: dict[str, str] = _WORLD["continents"]
LONGEST_RIVERS: dict[str, str] = _WORLD["longest_rivers"]
LANGUAGES: dict[str, str] = _WORLD["languages"]
HOMELANDS: dict[str, tuple[str, str]] = _WORLD["homelands"]
ZONES = listed(_WORLD["zones"])
STATE_CAPITALS: dict[str, str] = _WORLD["state_capitals"]
UNTOUCHED_ELEMENTS: dict[str, str] = _WORLD["untouched_elements"]
EDITED_ELEMENTS: dict[str, str] = _WORLD["edited_elements"]
