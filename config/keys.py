"""docs/keys.md: every key with type, default and meaning, from the schema and the comments of the yaml files.

    python -m config.keys

A default is what the command line composes. A meaning is the comment beside the key in the schema, or else in yaml.
Where the members of a group differ, their names stand behind the default.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any, get_type_hints

import jinja2
import pandas as pd
import yaml

from config.choices import RANGE
from config.compose import FOLDER, compose_config
from config.schema import Config
from config.sites import fold_sites
from files import write_whole

PAGE = FOLDER.parent / "docs" / "keys.md"
LINE = re.compile(r"( *)([\w.]+):(?:.*\s#\s*(.*))?")
FIELD = re.compile(r"^    (\w+): .*?\s#\s*(.*)$", re.MULTILINE)
NAMES = {
    "bool": "true or false",
    "int": "whole number",
    "float": "number",
    "str": "text",
    "Any": "whole number",
}
ROW = ["key", "type", "meaning"]


def yaml_comments(path: Path, prefix: str = "") -> dict[str, str]:
    """The comments of a yaml file by dotted key, those of the files that it inherits from among them."""
    text = path.read_text(encoding="utf-8")
    found: dict[str, str] = {}
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
    name = ", ".join(f"`{word.value}`" for word in type(value)) if isinstance(value, Enum) else NAMES.get(kind, "list")
    return f"{name} {field.metadata.get(RANGE, '')}".strip() + (", or null" if optional else "")


def shown(value: Any) -> str:
    """A value as yaml writes it."""
    plain = value.value if isinstance(value, Enum) else fold_sites(value) if isinstance(value, list) else value
    text = yaml.safe_dump(plain, default_flow_style=True, width=1000).removesuffix("...\n").strip()
    return f"`{text}`"


def rows(node: Any, comments: Mapping[str, str], prefix: str) -> Iterator[tuple[str, ...]]:
    """Every key below a configuration: its type, meaning and default."""
    beside, hints = dict(FIELD.findall(inspect.getsource(type(node)))), get_type_hints(type(node))
    for field in dataclasses.fields(node):
        key, value = prefix + field.name, getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            yield key, "group of keys", first_line(hints[field.name].__doc__), ""
            yield from rows(value, comments, f"{key}.")
        else:
            said = beside.get(field.name) or comments.get(key, "")
            said = said.partition("   ")[2].lstrip("# ") or said  # what stands before the three spaces is the type
            yield key, type_name(field, value), said, shown(value)


def launcher_rows(path: Path) -> Iterator[tuple[str, ...]]:
    """The keys of a launcher, which a plugin of Hydra defines."""
    comments = yaml_comments(path)
    for key, value in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        if not key.startswith("_"):
            yield f"hydra.launcher.{key}", "", comments[key], shown(value)


def joined(members: Mapping[Path, Iterable[tuple[str, ...]]]) -> list[list[str]]:
    """The keys of a group, each once; behind a default that not all members share stand the names that have it."""
    found = [(*row, path.stem) for path, of_one in members.items() for row in of_one]
    table = pd.DataFrame(found, columns=[*ROW, "default", "names"])
    order = list(table["key"].unique())
    table = table.groupby([*ROW, "default"], sort=False)["names"].agg(", ".join).reset_index()
    all_names = ", ".join(path.stem for path in members)
    table["default"] += [f" ({names})" if names != all_names else "" for names in table["names"]]
    table = table.groupby(ROW, sort=False)["default"].agg(", ".join).reset_index()
    return table.sort_values("key", key=lambda keys: keys.map(order.index), kind="stable").to_numpy().tolist()


def group_rows(group: str, path: Path) -> Iterator[tuple[str, ...]]:
    """The keys of a group as its member in a file sets them, or config.yaml."""
    words, prefix = ([f"{group}={path.stem}"], f"{group}.") if path.parent.name == group else ([], "")
    return rows(getattr(compose_config(words), group), yaml_comments(path, prefix), f"{group}.")


def render() -> str:
    """The whole page."""
    main_file = FOLDER / "config.yaml"
    own = [row for row in rows(compose_config([]), yaml_comments(main_file), "") if "." not in row[0]]
    parts = [("The run", first_line(Config.__doc__), {main_file: own})]
    for group, kind in get_type_hints(Config).items():
        if dataclasses.is_dataclass(kind):
            files = sorted((FOLDER / group).glob("*.yaml")) or [main_file]
            parts.append((group, first_line(kind.__doc__), {path: list(group_rows(group, path)) for path in files}))
    launchers = {path: list(launcher_rows(path)) for path in sorted((FOLDER / "hydra" / "launcher").glob("*.yaml"))}
    parts.append(("hydra/launcher", "How the jobs of a sweep are started.", launchers))
    pages = jinja2.Environment(loader=jinja2.FileSystemLoader(FOLDER), trim_blocks=True, keep_trailing_newline=True)
    pages.filters["first_line"] = first_line
    sections = [(title, about, list(members), joined(members)) for title, about, members in parts]
    return pages.get_template("keys.md.j2").render(sections=sections)


if __name__ == "__main__":
    write_whole(PAGE, render())
    print(f"written: {PAGE}")
