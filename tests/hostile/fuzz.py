"""Drawn bad input: bytes and JSON trees of records and of the files that the program makes; keys and values."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.hostile import caches, exported, models, records, runs
from tests.hostile.case import Case, either
from tests.hostile.clean import Clean, learned, model_copy, small
from tests.hostile.keys import LONG, keys

DRAWN = "what is left says the same"
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**21), 10**21), st.floats(), st.text(max_size=20),
    st.sampled_from(["", LONG, "nan", "\x1b[2J", "../..", "/proc/nowhere", "\ud800", 10**20, -1, 0]),
)  # fmt: skip
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner,
                     max_size=3), max_leaves=6)  # fmt: skip


def bytes_changed(content: bytes, where: float, how: int, random_bytes: bytes) -> bytes:
    """A file cut, or with bytes changed, left out or put in at a share of its length."""
    at = int(where * len(content))
    whole = bytearray(content)
    if how == 0:
        return content[:at]
    if how == 1:
        whole[at : at + len(random_bytes)] = random_bytes
    elif how == 2:
        del whole[at : at + 1 + len(random_bytes)]
    elif how == 3:
        whole[at:at] = random_bytes
    elif whole:
        whole[min(at, len(whole) - 1)] ^= 1 << (how - 4)
    return bytes(whole)


def tree_changed(tree: Any, generator: random.Random, value: Any) -> Any:
    """JSON of which one node, somewhere, is another, or gone."""
    if not isinstance(tree, dict | list) or not tree or generator.random() < 0.15:
        return value
    place = generator.choice(list(tree) if isinstance(tree, dict) else range(len(tree)))
    if generator.random() < 0.15:
        del tree[place]
    else:
        tree[place] = tree_changed(tree[place], generator, value)
    return tree


Damage = Callable[[Path], None]


def bytes_damage() -> st.SearchStrategy[Damage]:
    """Ways to change the bytes of a file."""

    def damage(where: float, how: int, more: bytes) -> Damage:
        return lambda path: path.write_bytes(bytes_changed(path.read_bytes(), where, how, more)) and None

    return st.builds(damage, st.floats(0, 1), st.integers(0, 11), st.binary(min_size=1, max_size=12))


def tree_damage() -> st.SearchStrategy[Damage]:
    """Ways to change a JSON file's tree."""

    def damage(draw: int, value: Any) -> Damage:
        def do(path: Path) -> None:
            changed = tree_changed(json.loads(path.read_text()), random.Random(draw), value)
            path.write_text(json.dumps(changed))

        return do

    return st.builds(damage, st.integers(0, 2**32), TREES)


JSON = st.one_of(bytes_damage(), tree_damage(), tree_damage())


def record_cases() -> st.SearchStrategy[Case]:
    """Record files, as JSON or lines."""

    def case(damage: Damage, lines: bool) -> Case:
        def make(folder: Path, _: Clean) -> list[str]:
            path = folder / ("a.jsonl" if lines else "a.json")
            path.write_text(records.LINES if lines else json.dumps(records.ROWS))
            if lines:  # a tree is a row's
                row = folder / "row"
                row.write_text(records.LINES.splitlines()[2])
                damage(row)
                path.write_bytes(b"\n".join([row.read_bytes(), records.LINES.encode()]))
            else:
                damage(path)
            return small(f"{records.VALID}={path.name}")

        return Case("fuzz", "records", make, either("other texts are texts too", records.VALID))

    return st.builds(case, JSON, st.booleans())


def key_cases() -> st.SearchStrategy[Case]:
    """A key with any value, as it would stand between quotes or without them."""

    def case(key: Any, value: Any, quote: bool) -> Case:
        written = json.dumps(value).encode("utf-8", "replace").decode()
        plain = str(value).encode("utf-8", "replace").decode().replace("\n", " ").replace("\0", "")
        word = f"{key.name}=" + (written if quote else plain)
        words = learned(word) if key.editor == "malmen" else small(word)
        named = either("a value that works", (key.name, key.name.rpartition(".")[2]))
        return Case("fuzz", f"keys {word[:80]}", lambda *_: words, named)

    some = [key for key in keys() if key.editor != "rledit"]
    return st.builds(case, st.sampled_from(some), TREES, st.booleans())


def file_cases(files: list[tuple[str, Callable[[Path, Clean], list[Path]], Any]]) -> st.SearchStrategy[Case]:
    """Files made by the program: (what it is, what makes a copy and gives its files, the row that runs it)."""

    def case(which: int, index: int, damage: Damage, rough: Damage) -> Case:
        what, copies, row = files[which]

        def make(folder: Path, clean: Clean) -> list[Any]:
            found = copies(folder, clean)
            path = found[index % len(found)]
            (damage if path.suffix == ".json" else rough)(path)
            return list(row.make(folder, clean))

        return Case("fuzz", what, make, row.wants)

    return st.builds(case, st.integers(0, len(files) - 1), st.integers(0, 10**6), JSON, bytes_damage())


class Row:
    """A command line behind a copy that is there already, and what must come of it."""

    def __init__(self, words: list[Any], **same: Any) -> None:
        self.make = lambda *_: words
        self.wants = either(DRAWN, **same)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


def _cache(name: str) -> Callable[[Path, Clean], list[Path]]:
    return lambda folder, clean: _files(clean.copy(f"{name}/cache", folder / "cache"))


def _model(folder: Path, _: Clean) -> list[Path]:
    # of its weights any byte may be another model's
    return [path for path in _files(model_copy(folder)) if path.suffix == ".json"]


def _cached(name: str) -> Row:
    key, words, _ = caches.CACHES[name]
    return Row(small(*words, f"{key}=cache"), same=caches.same_cached(name))


MADE = [
    ("checkpoints", lambda f, c: _files(runs.stopped(f, c) / "checkpoints"), Row(runs.RESUME, same=runs.SAME)),
    ("deltas", lambda f, c: _files(c.copy("delta/saved", f / "delta")),
     Row(["-m", "exports", "apply-delta", exported.BASE, "delta", "out"], same=exported.APPLIED)),
    ("before", _cache("before"), _cached("before")),
    ("frozen", _cache("frozen"), _cached("frozen")),
    ("models", _model, Row(small(f"{models.KEY}=model"))),
    ("networks", lambda f, c: _files(c.copy("learned/run/checkpoint", f / "networks")),
     Row(learned(f"{exported.LOAD}=networks"), same=exported.NETWORKS)),
]  # fmt: skip


def drawn(strategy: st.SearchStrategy[Case], count: int, start: int) -> list[Case]:
    """So many examples of a strategy; the same for the same seed."""
    found: list[Case] = []

    @seed(start)
    @settings(max_examples=count, phases=[Phase.generate], database=None, deadline=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(strategy)
    def collect(case: Case) -> None:
        found.append(case)

    collect()
    return found[:count]


def cases(count: int, start: int = 0) -> Iterator[Case]:
    """`count` examples of records, of keys, and of each kind of file that the program makes."""
    for index, case in enumerate(drawn(record_cases(), count, start) + drawn(key_cases(), count, start)):
        yield _numbered(case, index)
    for what in MADE:
        for index, case in enumerate(drawn(file_cases([what]), count, start)):
            yield _numbered(case, index)


def _numbered(case: Case, index: int) -> Case:
    return Case(f"fuzz {case.name.partition(' ')[0]}", f"{index} {case.name}", case.make, case.wants)
