"""The facts that may be edited: subject, true object, and what an edited object would imply."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from data.facts import world
from data.facts.tables import City, Country, World

ZONE_GAP = 45.0
"""Degrees of longitude; zones that far apart do not keep the same time."""

Hop = tuple[str, str]
"""(kind of second fact, its answer)."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One true fact; `also_true` are further objects that an edit must not choose."""

    subject: str
    relation: str
    true_answer: str
    also_true: frozenset[str] = field(default_factory=frozenset)


def second_hops(source: World) -> dict[str, dict[str, list[Hop]]]:
    """relation -> counterfactual answer -> the two-hop answers that follow from it."""
    answers = {iso: source.countries[iso] for iso in world.ANSWER_COUNTRIES}
    lone = {word: [("issuer", answers[iso].name)] for word, iso in world.LONE_CURRENCIES.items()}
    rivers = {place: [("river", river)] for place, river in world.LONGEST_RIVERS.items()}
    zones = source.zone_cities.values()
    return {
        "city_country": {c.name: hops for c in answers.values() if (hops := _country_hops(c))},
        "city_timezone": {z.name: [("zone_country", answers[z.iso].name)] for z in zones},
        "city_language": {k: [("homeland", answers[iso].name)] for k, (iso, _) in world.HOMELANDS.items()},
        "city_currency": lone,
        "city_continent": rivers,
        "us_city_state": {state: [("state_capital", c)] for state, c in world.STATE_CAPITALS.items()},
        "country_capital": {c.capital: [("capital_of", c.name)] for c in answers.values() if c.capital},
        "country_currency": lone,
        "country_continent": rivers,
        "element_symbol": {s: [("first_letter", s[0])] for s in world.EDITED_ELEMENTS.values()},
    }


def _country_hops(country: Country) -> list[Hop]:
    pairs = (("capital", country.capital), ("currency", country.currency), ("continent", country.continent))
    return [(kind, answer) for kind, answer in pairs if answer]


def city_facts(city: City, source: World) -> Iterator[Fact]:
    """Every fact known about one city; an edit uses at most one of them."""
    country = source.countries[city.iso]
    # A neighbour may claim the place, so no edit moves a city across one border.
    near = frozenset(source.countries[i].name for i in country.neighbours if i in source.countries)
    yield Fact(city.name, "city_country", country.name, near)
    if city.zone in source.zone_cities:
        yield Fact(city.name, "city_timezone", source.zone_cities[city.zone].name, _near_zones(city, source))
    if city.iso in world.LANGUAGES:
        spoken = {k for k, (_, code) in world.HOMELANDS.items() if code in country.languages}
        yield Fact(city.name, "city_language", world.LANGUAGES[city.iso], frozenset(spoken))
    if country.currency:
        yield Fact(city.name, "city_currency", country.currency)
    if country.continent:
        yield Fact(city.name, "city_continent", country.continent)
    if city.state in world.STATE_CAPITALS:
        yield Fact(city.name, "us_city_state", city.state)


def _near_zones(city: City, source: World) -> frozenset[str]:
    """Zone cities that may share the city's time, seen from it and from its own zone's city."""
    here = (city.longitude, source.zone_cities[city.zone].longitude)
    gaps = {z.name: min(_gap(z.longitude, x) for x in here) for z in source.zone_cities.values()}
    return frozenset(name for name, gap in gaps.items() if gap < ZONE_GAP)


def _gap(east: float, west: float) -> float:
    distance = abs(east - west) % 360
    return min(distance, 360 - distance)


def country_facts(source: World) -> Iterator[Fact]:
    """One fact for each edited country, its kind taken in turn."""
    kinds = ("capital", "currency", "continent")
    for turn, iso in enumerate(world.EDITED_COUNTRIES):
        country = source.countries[iso]
        known = [k for k in kinds[turn % 3 :] + kinds[: turn % 3] if getattr(country, k)]
        if known:
            yield Fact(country.in_text, f"country_{known[0]}", getattr(country, known[0]))


def element_facts() -> Iterator[Fact]:
    """The symbols of the edited elements."""
    for name, symbol in world.EDITED_ELEMENTS.items():
        yield Fact(name, "element_symbol", symbol)
