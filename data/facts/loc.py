"""Unrelated prompts with their own true answers: geography, elements and common knowledge."""

from __future__ import annotations

from data.facts import world
from data.facts.tables import World

Probe = tuple[str, str]
"""(prompt, true answer)."""

WORDS = world.tables("words")
NUMBERS, DAYS, MONTHS = (world.listed(WORDS[name]) for name in ("numbers", "days", "months"))


def probes(source: World) -> dict[str, list[Probe]]:
    """Unrelated prompts by kind."""
    return {**_geography(source), **_words(), **_counting()}


def _pairs(name: str) -> list[tuple[str, str]]:
    """The entries of a table of words.toml: each entry's last word is the answer."""
    splits = (entry.strip().rpartition(" ") for entry in WORDS[name].split("|"))
    return [(prompt, answer) for prompt, _, answer in splits]


def _geography(source: World) -> dict[str, list[Probe]]:
    countries = [source.countries[iso] for iso in world.ANSWER_COUNTRIES]
    homes = [(source.countries[iso].in_text, language) for iso, language in world.LANGUAGES.items()]
    return {
        "capital": [(f"The capital of {c.in_text} is", c.capital) for c in countries if c.capital],
        "country": [(f"{c.capital} is the capital city of the country called", c.name) for c in countries if c.capital],
        "continent": [
            (f"As for its continent, {c.in_text} is located in", c.continent) for c in countries if c.continent
        ],
        "currency": [(f"The currency of {c.in_text} is the", c.currency) for c in countries if c.currency],
        "language": [(f"The main language of {name} is", language) for name, language in homes],
        "element": [(f"The chemical symbol of {e} is", s) for e, s in world.UNTOUCHED_ELEMENTS.items()],
    }


def _words() -> dict[str, list[Probe]]:
    return {
        "opposite": [(f"The opposite of {a} is", b) for a, b in _pairs("opposites")],
        "past": [(f"Today I {a}. Yesterday I", b) for a, b in _pairs("past")],
        "plural": [(f"One {a}, two", b) for a, b in _pairs("plurals")],
        "young": [(f"A young {a} is called a", b) for a, b in _pairs("young")],
        "colour": [(f"If you ask about its colour, {a} is usually", b) for a, b in _pairs("colours")],
        "kind": _pairs("kinds"),
        "common": _pairs("common"),
    }


def _counting() -> dict[str, list[Probe]]:
    sums = [(a, b) for a in range(1, 9) for b in range(1, 8) if a + b < len(NUMBERS)]
    return {
        "sum": [(f"{NUMBERS[a].capitalize()} plus {NUMBERS[b]} equals", NUMBERS[a + b]) for a, b in sums],
        "series": _runs(NUMBERS[1:], wrap=False),
        "calendar": _runs(DAYS, wrap=True) + _runs(MONTHS, wrap=True),
    }


def _runs(names: tuple[str, ...], wrap: bool) -> list[Probe]:
    """Three neighbours in a row; the fourth is the answer."""
    line = names + names[:3] if wrap else names
    return [(f"{a.capitalize()}, {b}, {c},", d) for a, b, c, d in zip(line, line[1:], line[2:], line[3:], strict=False)]
