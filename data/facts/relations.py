"""The facts that may be edited, what an edited object would imply, and unrelated prompts with true answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from data.facts.tables import WORLD, City, Places, tables

ZONE_GAP = 45.0
"""Degrees of longitude; zones that far apart do not keep the same time."""

Pair = tuple[str, str]
"""An unrelated prompt and its true answer, or the kind of a second fact and its answer."""

UNRELATED, WORDS = tables("templates")["unrelated"], tables("words")
NUMBERS, DAYS, MONTHS = (WORDS[name].split() for name in ("numbers", "days", "months"))


@dataclass(frozen=True, slots=True)
class Fact:
    """One true fact; `also_true` are further objects that an edit must not choose."""

    subject: str
    relation: str
    true_answer: str
    also_true: frozenset[str] = frozenset()


def second_hops(source: Places) -> dict[str, dict[str, list[Pair]]]:
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
        "country_capital": {
            c.known["capital"]: [("capital_of", c.name)] for c in answers.values() if "capital" in c.known
        },
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
    if zone := source.zone_cities.get(city.zone):
        # Seen from the city and from its own zone's city.
        places = (city.longitude, zone.longitude)
        near = frozenset(z.name for z in source.zone_cities.values() if min(_gaps(z.longitude, places)) < ZONE_GAP)
        yield Fact(city.name, "city_timezone", zone.name, near)
    if city.iso in WORLD.languages:
        spoken = frozenset(k for k, (_, code) in WORLD.homelands.items() if code in country.languages)
        yield Fact(city.name, "city_language", WORLD.languages[city.iso], spoken)
    for kind in ("currency", "continent"):
        if kind in country.known:
            yield Fact(city.name, f"city_{kind}", country.known[kind])
    if city.state and city.state in WORLD.state_capitals:
        yield Fact(city.name, "us_city_state", city.state)


def _gaps(longitude: float, others: tuple[float, ...]) -> list[float]:
    """Degrees from a longitude to others, the shorter way round."""
    return [abs((longitude - other + 180) % 360 - 180) for other in others]


def country_facts(source: Places) -> Iterator[Fact]:
    """One fact for each edited country, its kind taken in turn."""
    kinds = ("capital", "currency", "continent")
    for turn, iso in enumerate(WORLD.edited_countries):
        country = source.countries[iso]
        if kind := next((k for k in kinds[turn % 3 :] + kinds[: turn % 3] if k in country.known), None):
            yield Fact(country.in_text, f"country_{kind}", country.known[kind])


def probes(source: Places) -> dict[str, list[Pair]]:
    """Unrelated prompts by kind: geography, elements, common knowledge and counting."""
    countries = [source.countries[iso] for iso in WORLD.answer_countries]
    sums = [(a, b) for a in range(1, 9) for b in range(1, 8) if a + b < len(NUMBERS)]
    pairs = {
        kind: [(c.in_text, c.known[kind]) for c in countries if kind in c.known]
        for kind in ("capital", "continent", "currency")
    }
    pairs |= {
        kind: [entry.strip().rpartition(" ")[::2] for entry in text.split("|")] for kind, text in WORDS["pairs"].items()
    }
    pairs |= {
        "country": [(c.known["capital"], c.name) for c in countries if "capital" in c.known],
        "language": [(source.countries[iso].in_text, language) for iso, language in WORLD.languages.items()],
        "element": list(WORLD.untouched_elements.items()),
        "sum": [(f"{NUMBERS[a].capitalize()} plus {NUMBERS[b]}", NUMBERS[a + b]) for a, b in sums],
        "series": _runs(NUMBERS[1:]),
        "calendar": _runs(DAYS + DAYS[:3]) + _runs(MONTHS + MONTHS[:3]),
    }
    return {kind: [(UNRELATED[kind].replace("{s}", a), b) for a, b in group] for kind, group in pairs.items()}


def _runs(line: list[str]) -> list[Pair]:
    """Three neighbours in a row; the fourth is the answer."""
    return [(f"{a.capitalize()}, {b}, {c}", d) for a, b, c, d in zip(line, line[1:], line[2:], line[3:], strict=False)]
