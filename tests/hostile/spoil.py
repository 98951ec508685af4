"""Ways to spoil a file: what was there is cut, changed, gone, or something else in its place."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

Spoil = Callable[[Path], None]


def removed(path: Path) -> None:
    """Gone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def emptied(path: Path) -> None:
    """0 bytes."""
    path.write_bytes(b"")


def cut(path: Path) -> None:
    """The first half."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flipped(path: Path) -> None:
    """One bit in the middle is another."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def longer(path: Path) -> None:
    """More at its end."""
    with open(path, "ab") as file:
        file.write(b"\x00garbage\xff")


def garbage(path: Path) -> None:
    """Bytes that are no text."""
    path.write_bytes(bytes(range(256)) * 8)


def words(path: Path) -> None:
    """A text that is nothing else."""
    path.write_text("nothing to see here {[: \n")


def folder(path: Path) -> None:
    """A folder in its place."""
    removed(path)
    path.mkdir()


def dangling(path: Path) -> None:
    """A link to nowhere."""
    removed(path)
    path.symlink_to(path.parent / "nowhere")


def loop(path: Path) -> None:
    """A link to itself."""
    removed(path)
    loop_at(path)


def loop_at(path: Path) -> None:
    """A link to itself where nothing is."""
    path.symlink_to(path)


def fifo(path: Path) -> None:
    """A pipe that nobody writes to."""
    removed(path)
    os.mkfifo(path)


def linked(path: Path) -> None:
    """A link to the same content elsewhere."""
    there = path.rename(path.parent.parent / f"moved-{path.name}")
    path.symlink_to(there)


def endless(path: Path) -> None:
    """A link to a device without an end."""
    removed(path)
    path.symlink_to("/dev/zero")


WAYS: tuple[Spoil, ...] = (removed, emptied, cut, flipped, longer, garbage, words, folder, dangling, loop, fifo)
"""Those after which a file is not what it was."""


def named(spoil: Spoil) -> str:
    """How the table calls a way."""
    return spoil.__name__


def edit_json(path: Path, change: Callable[[Any], Any]) -> None:
    """Read JSON, let `change` make something else of it (None: it changed what it was given), write it back."""
    content = json.loads(path.read_text(encoding="utf-8"))
    other = change(content)
    path.write_text(json.dumps(content if other is None else other), encoding="utf-8")


def put(key: str, value: Any) -> Callable[[Any], None]:
    """A change of JSON: the value at a dotted key."""

    def change(content: Any) -> None:
        *parents, last = key.split(".")
        for name in parents:
            content = content[name]
        content[last] = value

    return change


def drop(key: str) -> Callable[[Any], None]:
    """A change of JSON: without this key."""

    def change(content: Any) -> None:
        del content[key]

    return change
