"""The facts that may be edited, what an edited object would imply, and unrelated prompts with true answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from data.facts.tables import WORLD, City, Places, listed, tables

ZONE_GAP = 45.0
"""Degrees of longitude; zones that far apart do not keep the same time."""

Hop = tuple[str, str]
"""(kind of second fact, its answer)."""
Probe = tuple[str, str]
"""(unrelated prompt, its true answer)."""

WORDS = tables("words")
NUMBERS, DAYS, MONTHS = (listed(WORDS[name]) for name in ("numbers", "days", "months"))


@dataclass(frozen=True, slots=True)
class Fact:
    """One true fact; `also_true` are further objects that an edit must not choose."""

    subject: str
    relation: str
    true_answer: str
    also_true: frozenset[str] = frozenset()


def second_hops(source: Places) -> dict[str, dict[str, list[Hop]]]:
    """relation -> counterfactual answer -> the two-hop answers that follow from it."""
    answers = {iso: source.countries[iso] for iso in WORLD.answer_countries}
    lone = {word: [("issuer", answers[iso].name)] for word, iso in WORLD.lone_currencies.items()}
    rivers = {place: [("river", river)] for place, river in WORLD.longest_rivers.items()}
    zones = source.zone_cities.values()
    return {
        "city_country": {c.name: list(c.known.items()) for c in answers.values() if c.known},
        "city_timezone": {z.name: [("zone_country", answers[z.iso].name)] for z in zones},
        "city_language": {k: [("homeland", answers[iso].name)] for k, (iso, _) in WORLD.homelands.items()},
        "city_currency": lone,
        "city_continent": rivers,
        "us_city_state": {state: [("state_capital", c)] for state, c in WORLD.state_capitals.items()},
        "country_capital": {c.capital: [("capital_of", c.name)] for c in answers.values() if c.capital},
        "country_currency": lone,
        "country_continent": rivers,
        "element_symbol": {s: [("first_letter", s[0])] for s in WORLD.edited_elements.values()},
    }


def city_facts(city: City, source: Places) -> Iterator[Fact]:
    """Every fact known about one city; an edit uses at most one of them."""
    country = source.countries[city.iso]
    # A neighbour may claim the place, so no edit moves a city across one border.
    near = frozenset(source.countries[i].name for i in country.neighbours if i in source.countries)
    yield Fact(city.name, "city_country", country.name, near)
    if city.zone in source.zone_cities:
        yield Fact(city.name, "city_timezone", source.zone_cities[city.zone].name, _near_zones(city, source))
    if city.iso in WORLD.languages:
        spoken = frozenset(k for k, (_, code) in WORLD.homelands.items() if code in country.languages)
        yield Fact(city.name, "city_language", WORLD.languages[city.iso], spoken)
    for kind in ("currency", "continent"):
        if kind in country.known:
            yield Fact(city.name, f"city_{kind}", country.known[kind])
    if city.state and city.state in WORLD.state_capitals:
        yield Fact(city.name, "us_city_state", city.state)


def _near_zones(city: City, source: Places) -> frozenset[str]:
    """Zone cities that may share the city's time, seen from it and from its own zone's city."""
    here = (city.longitude, source.zone_cities[city.zone].longitude)
    return frozenset(z.name for z in source.zone_cities.values() if min(_gap(z.longitude, x) for x in here) < ZONE_GAP)


def _gap(east: float, west: float) -> float:
    distance = abs(east - west) % 360
    return min(distance, 360 - distance)


def country_facts(source: Places) -> Iterator[Fact]:
    """One fact for each edited country, its kind taken in turn."""
    kinds = ("capital", "currency", "continent")
    for turn, iso in enumerate(WORLD.edited_countries):
        country = source.countries[iso]
        if kind := next((k for k in kinds[turn % 3 :] + kinds[: turn % 3] if k in country.known), None):
            yield Fact(country.in_text, f"country_{kind}", country.known[kind])


def element_facts() -> Iterator[Fact]:
    """The symbols of the edited elements."""
    for name, symbol in WORLD.edited_elements.items():
        yield Fact(name, "element_symbol", symbol)


def probes(source: Places) -> dict[str, list[Probe]]:
    """Unrelated prompts by kind: geography, elements, common knowledge and counting."""
    countries = [source.countries[iso] for iso in WORLD.answer_countries]
    homes = [(source.countries[iso].in_text, language) for iso, language in WORLD.languages.items()]
    sums = [(a, b) for a in range(1, 9) for b in range(1, 8) if a + b < len(NUMBERS)]
    return {
        "capital": [(f"The capital of {c.in_text} is", c.capital) for c in countries if c.capital],
        "country": [(f"{c.capital} is the capital city of the country called", c.name) for c in countries if c.capital],
        "continent": [
            (f"As for its continent, {c.in_text} is located in", c.continent) for c in countries if c.continent
        ],
        "currency": [(f"The currency of {c.in_text} is the", c.currency) for c in countries if c.currency],
        "language": [(f"The main language of {name} is", language) for name, language in homes],
        "element": [(f"The chemical symbol of {e} is", s) for e, s in WORLD.untouched_elements.items()],
        "opposite": [(f"The opposite of {a} is", b) for a, b in _pairs("opposites")],
        "past": [(f"Today I {a}. Yesterday I", b) for a, b in _pairs("past")],
        "plural": [(f"One {a}, two", b) for a, b in _pairs("plurals")],
        "young": [(f"A young {a} is called a", b) for a, b in _pairs("young")],
        "colour": [(f"If you ask about its colour, {a} is usually", b) for a, b in _pairs("colours")],
        "kind": _pairs("kinds"),
        "common": _pairs("common"),
        "sum": [(f"{NUMBERS[a].capitalize()} plus {NUMBERS[b]} equals", NUMBERS[a + b]) for a, b in sums],
        "series": _runs(NUMBERS[1:]),
        "calendar": _runs(DAYS + DAYS[:3]) + _runs(MONTHS + MONTHS[:3]),
    }


def _pairs(name: str) -> list[tuple[str, str]]:
    """The entries of a table of words.toml: each entry's last word is the answer."""
    splits = (entry.strip().rpartition(" ") for entry in WORDS[name].split("|"))
    return [(prompt, answer) for prompt, _, answer in splits]


def _runs(line: tuple[str, ...]) -> list[Probe]:
    """Three neighbours in a row; the fourth is the answer."""
    return [(f"{a.capitalize()}, {b}, {c},", d) for a, b, c, d in zip(line, line[1:], line[2:], line[3:], strict=False)]
