"""docs/keys.md: every key with type, default and meaning, from the schema and the comments of the yaml files.

    python -m config.keys [FILE]

A default is what the command line composes. A meaning is the comment beside the key in the schema, or else in yaml.
Where the members of a group differ, their names stand behind the default.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from config.compose import FOLDER, compose_config
from config.schema import RANGE, Config
from config.sites import fold_sites
from files import write_whole

PAGE = FOLDER.parent / "docs" / "keys.md"
LINE = re.compile(r"( *)([\w.]+):(?:.*\s#\s*(.*))?")
FIELD = re.compile(r"^    (\w+): .*?\s#\s*(.*)$", re.MULTILINE)
NAMES = {"bool": "true or false", "int": "whole number", "float": "number", "str": "text", "list[str]": "list"}
HEAD = """# Keys

Written by `python -m config.keys` from `config/schema.py` and the yaml files of `config/`.
Names, types and values are checked before anything is loaded; `python main.py ... --cfg job` shows what they come to.
"""

Comments = dict[str, str]
"""The comment of each dotted key."""
Row = tuple[tuple[str, str, str], str]
"""A key with its type and meaning, and its default."""


def yaml_comments(path: Path, prefix: str = "") -> Comments:
    """The comments of a yaml file by dotted key, those of the files that it inherits from among them."""
    text = path.read_text(encoding="utf-8")
    found: Comments = {}
    for parent in (yaml.safe_load(text) or {}).get("defaults", []):
        if isinstance(parent, str):
            name = parent.partition("@")[0]
            file = (FOLDER if name.startswith("/") else path.parent) / f"{name.lstrip('/')}.yaml"
            found |= yaml_comments(file, prefix) if file.is_file() else {}
    parts: list[str] = []
    for above, line in pairwise(["", *text.splitlines()]):
        if match := LINE.match(line):
            parts[len(match[1]) // 2 :] = [match[2]]
            comment = match[3] or (above.lstrip("# ") if above.lstrip().startswith("# ") else None)
            found |= {prefix + ".".join(parts): comment} if comment else {}
    return found


def first_line(text: str | None) -> str:
    """What a docstring or a file says first."""
    return (text or "").splitlines()[0].lstrip("# ")


def type_name(field: dataclasses.Field[Any], value: Any) -> str:
    """The type of a key in words, with the range of numbers."""
    kind, optional, _ = str(field.type).partition(" | None")
    name = ", ".join(f"`{word.value}`" for word in type(value)) if isinstance(value, Enum) else NAMES[kind]
    return f"{name} {field.metadata.get(RANGE, '')}".strip() + (", or null" if optional else "")


def shown(value: Any) -> str:
    """A value as yaml writes it."""
    plain = value.value if isinstance(value, Enum) else fold_sites(value) if isinstance(value, list) else value
    text = yaml.safe_dump(plain, default_flow_style=True, width=1000).removesuffix("...\n").strip()
    return f"`{text}`"


def rows(node: Any, comments: Comments, prefix: str) -> Iterator[Row]:
    """Every key below a configuration."""
    beside, hints = dict(FIELD.findall(inspect.getsource(type(node)))), get_type_hints(type(node))
    for field in dataclasses.fields(node):
        key, value = prefix + field.name, getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            yield (key, "group of keys", first_line(hints[field.name].__doc__)), ""
            yield from rows(value, comments, f"{key}.")
        else:
            said = beside.get(field.name) or comments.get(key, "")
            said = said.partition("   ")[2] or said  # what stands before the three spaces is the type
            yield (key, type_name(field, value), said), shown(value)


def launcher_rows(path: Path) -> Iterator[Row]:
    """The keys of a launcher, which a plugin of Hydra defines."""
    comments = yaml_comments(path)
    for key, value in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        if not key.startswith("_"):
            yield (f"hydra.launcher.{key}", "", comments[key]), shown(value)


def section(title: str, about: str, members: Mapping[Path, Iterable[Row]]) -> str:
    """The keys of a group as a table; `members` are its rows by the file that sets their defaults."""
    having: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    for path, found in members.items():
        for row, default in found:
            having.setdefault(row, {}).setdefault(default, []).append(path.stem)
    lines = [f"\n## {title}\n\n{about}\n"]
    if len(members) > 1:
        lines += [*(f"- `{title}={path.stem}`: {first_line(path.read_text(encoding='utf-8'))}" for path in members), ""]
    lines += ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    everyone, order = [path.stem for path in members], list(dict.fromkeys(key for key, *_ in having))
    for (key, kind, meaning), defaults in sorted(having.items(), key=lambda item: order.index(item[0][0])):
        told = [text if names == everyone else f"{text} ({', '.join(names)})" for text, names in defaults.items()]
        cells = (f"`{key}`", kind, ", ".join(told), meaning)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join([*lines, ""])


def group_rows(group: str, path: Path) -> Iterator[Row]:
    """The keys of a group as its member in a file sets them, or config.yaml."""
    words, prefix = ([f"{group}={path.stem}"], f"{group}.") if path.parent.name == group else ([], "")
    return rows(getattr(compose_config(words), group), yaml_comments(path, prefix), f"{group}.")


def render() -> str:
    """The whole page."""
    main_file = FOLDER / "config.yaml"
    own = [row for row in rows(compose_config([]), yaml_comments(main_file), "") if "." not in row[0][0]]
    parts = [HEAD, section("The run", first_line(Config.__doc__), {main_file: own})]
    for group, hint in get_type_hints(Config).items():
        if dataclasses.is_dataclass(hint):
            members = sorted((FOLDER / group).glob("*.yaml")) or [main_file]
            parts.append(section(group, first_line(hint.__doc__), {path: group_rows(group, path) for path in members}))
    launchers = {path: launcher_rows(path) for path in sorted((FOLDER / "hydra" / "launcher").glob("*.yaml"))}
    return "".join([*parts, section("hydra/launcher", "How the jobs of a sweep are started.", launchers)])


def main() -> None:
    """Write the page."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE
    write_whole(path, render())
    print(f"written: {path}")


if __name__ == "__main__":
    main()
