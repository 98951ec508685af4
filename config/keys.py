"""docs/keys.md: every key with type, default and meaning, from the schema and the comments of the yaml files.

    python -m config.keys [FILE]

Types are those of config/schema.py. A default is what the command line composes; where the members of a group
differ, the commonest with the others by name. A meaning is the comment beside the key in the schema, or else in yaml.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

import yaml

from config.compose import FOLDER, compose_config
from config.schema import RANGE, Config
from files import write_whole

PAGE = FOLDER.parent / "docs" / "keys.md"
GROUPS = ("dataset", "model", "editor")
COMMENT = re.compile(r"(?:^|\s)#\s*(.*)$")
NAMES = {bool: "true or false", int: "whole number", float: "number", str: "text"}
MOST_DEFAULTS = 3
UNSAID = [f"{group}.name" for group in GROUPS]  # the table of the groups says it
HEAD = """# Keys

Written by `python -m config.keys` from `config/schema.py` and the yaml files of `config/`.
Names, types and values are checked before anything is loaded; `python main.py ... --cfg job` shows what they come to.
"""

Comments = dict[str, str]
"""The comment of each dotted key."""
Members = Mapping[str, Any]
"""The composed configuration of a group by the name of its member: of editor by stableedit, ultraedit ..."""


def yaml_comments(path: Path) -> Comments:
    """The comments of a yaml file by dotted key, those of the files that it inherits from among them."""
    text = path.read_text(encoding="utf-8")
    found: Comments = {}
    for parent in (yaml.safe_load(text) or {}).get("defaults", []):
        if isinstance(parent, str):
            name = parent.partition("@")[0]
            file = (FOLDER if name.startswith("/") else path.parent) / f"{name.lstrip('/')}.yaml"
            found |= yaml_comments(file) if file.is_file() else {}
    return found | dict(_node_comments(yaml.compose(text), text.splitlines(), ""))


def _node_comments(node: yaml.Node | None, lines: list[str], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in node.value if isinstance(node, yaml.MappingNode) else []:
        several_lines = value.start_mark.line != value.end_mark.line
        mark = key.end_mark if several_lines else value.end_mark
        match = COMMENT.search(lines[mark.line][mark.column :])
        above = lines[key.start_mark.line - 1].strip()
        if match or above.startswith("# "):
            yield prefix + key.value, match[1] if match else above[2:]
        yield from _node_comments(value, lines, f"{prefix}{key.value}.")


def schema_comments(kind: type, prefix: str) -> Comments:
    """The comments behind the fields that a dataclass itself declares, by dotted key."""
    lines = inspect.getsource(kind).splitlines()
    matches = [re.match(r"    (\w+): .*?\s#\s*(.*)$", line) for line in lines]
    return {prefix + match[1]: match[2] for match in matches if match}


def type_name(kind: Any, limits: str = "") -> str:
    """A type in words; `limits` is the range of numbers."""
    if get_origin(kind) in (Union, UnionType):
        inner = next(argument for argument in get_args(kind) if argument is not NoneType)
        return f"{type_name(inner, limits)}, or null"
    if get_origin(kind) is list:
        return "list"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ", ".join(f"`{member.value}`" for member in kind)
    return f"{NAMES[kind]} {limits}".strip()


def shown(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, float):
        mantissa, e, exponent = repr(value).partition("e")
        return f"{mantissa}e{int(exponent)}" if e else mantissa.removesuffix(".0")
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = str(value.value if isinstance(value, Enum) else value)
    return f'"{text}"' if text in ("", "null") else text


def one_of(values: Mapping[str, str], group: str) -> str:
    """The commonest of several values, the others by name behind it; too many: that the group decides."""
    counts = Counter(values.values())
    if len(counts) > MOST_DEFAULTS or (len(counts) == len(values) > 1):
        return f"by {group}"
    usual = counts.most_common(1)[0][0]
    others = [f"{name}: `{value}`" for name, value in values.items() if value != usual]
    return f"`{usual}`" + (f" ({', '.join(others)})" if others else "")


def meaning(key: str, schema: Comments, comments: Mapping[str, Comments]) -> str:
    """The schema's comment, or those of the yaml files: the first, and behind it what others say, by name."""
    if key in schema:
        return schema[key]
    said: dict[str, list[str]] = {}
    for name, found in comments.items():
        if key in found:
            said.setdefault(found[key], []).append(name)
    texts = [text if at == 0 else f"{', '.join(names)}: {text}" for at, (text, names) in enumerate(said.items())]
    return "; ".join(texts)


def section(title: str, kind: type, prefix: str, members: Members, comments: Mapping[str, Comments]) -> Iterator[str]:
    """The keys that a dataclass declares as a table, and a section for each dataclass among them."""
    hints, schema = get_type_hints(kind), schema_comments(kind, prefix)
    own = [field for field in dataclasses.fields(kind) if field.name in kind.__annotations__]
    yield f"\n## {title}\n\n{(kind.__doc__ or '').splitlines()[0]}\n"
    yield "| key | type | default | meaning |\n| --- | --- | --- | --- |"
    for field in own:
        key, hint = prefix + field.name, hints[field.name]
        if dataclasses.is_dataclass(hint) or key in UNSAID:
            continue
        values = {name: shown(getattr(member, field.name)) for name, member in members.items()}
        limits = field.metadata.get(RANGE, "")
        said = meaning(key, schema, comments)
        said = said.partition("   ")[2] or said  # the values that stand before the three spaces are the type
        yield row(f"`{key}`", type_name(hint, limits), one_of(values, prefix[:-1]), said)
    for field in own:
        key, hint = prefix + field.name, hints[field.name]
        if field.name in GROUPS and not prefix:
            yield from group_sections(field.name)
        elif dataclasses.is_dataclass(hint):
            inner = {name: getattr(member, field.name) for name, member in members.items()}
            yield from section(f"`{key}`", cast(type, hint), f"{key}.", inner, comments)


def group_sections(group: str) -> Iterator[str]:
    """The keys of a group: those that all of its members have, then those of some."""
    files = {path.stem: path for path in sorted((FOLDER / group).glob("*.yaml"))}
    usual = getattr(compose_config([]), group).name
    names = sorted(files, key=lambda name: (name != usual, name))
    members = {name: getattr(compose_config([f"{group}={name}"]), group) for name in names}
    comments = {name: {f"{group}.{key}": text for key, text in yaml_comments(files[name]).items()} for name in names}
    kinds = [kind for member in members.values() for kind in reversed(type(member).__mro__)]
    for kind in dict.fromkeys(filter(dataclasses.is_dataclass, kinds)):
        having = {name: member for name, member in members.items() if isinstance(member, kind)}
        of = "" if len(having) == len(members) else f" of {', '.join(having)}"
        yield from section(f"`{group}`{of}", kind, f"{group}.", having, {name: comments[name] for name in having})


def row(*cells: str) -> str:
    """A line of a table."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def members_of_groups() -> Iterator[str]:
    """What each group offers, in its files' first lines."""
    yield "\n## Groups\n\n| choice | what it is |\n| --- | --- |"
    for folder in (*GROUPS, "hydra/launcher"):
        for path in sorted((FOLDER / folder).glob("*.yaml")):
            yield row(f"`{folder}={path.stem}`", path.read_text(encoding="utf-8").splitlines()[0].lstrip("# "))
    yield "\n`experiment=NAME` puts a recipe of `config/experiment` over all of them: `sh run.sh list`."


def launchers() -> Iterator[str]:
    """The keys of the launchers, which Hydra's plugins define."""
    for path in sorted((FOLDER / "hydra" / "launcher").glob("*.yaml")):
        values, comments = yaml.safe_load(path.read_text(encoding="utf-8")), yaml_comments(path)
        yield f"\n## `hydra.launcher` of {path.stem}\n\n| key | default | meaning |\n| --- | --- | --- |"
        for key, value in values.items():
            if not key.startswith("_"):
                yield row(f"`hydra.launcher.{key}`", f"`{shown(value)}`", comments.get(key, ""))


def render() -> str:
    """The whole page."""
    run = section("The run", Config, "", {"": compose_config([])}, {"": yaml_comments(FOLDER / "config.yaml")})
    return "\n".join([HEAD.rstrip(), *members_of_groups(), *run, *launchers(), ""])


def main() -> None:
    """Write the page."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE
    write_whole(path, render())
    print(f"written: {path}")


if __name__ == "__main__":
    main()
