"""Files and folders that appear whole or not at all, their hashes, and which living process they belong to."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from filelock import FileLock

UNSHOWN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Controls, bidirectional overrides, half a surrogate pair: nothing that a script is written with."""
PART = ".part"  # how the names of unfinished files and folders end


def remove_parts(folder: Path, name: str = "") -> None:
    """Remove what killed processes have left unfinished of `name`, or of anything, where nobody else is at work."""
    for path in list(folder.rglob(f".{name}*-*{PART}")):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


@contextmanager
def whole_file(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """A file open for writing ("w" or "wb") that takes the place of `path` at the end; on an error nothing changes.

    It is on the disk before it gets its name: a reader never sees half a file, not even after a power cut.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.parent / f".{path.name}-{secrets.token_hex(4)}{PART}"
    try:
        with open(scratch, mode.replace("w", "x"), encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: str | bytes) -> None:
    """Write text (UTF-8) or bytes as whole_file does."""
    with whole_file(path, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, content: Any) -> None:
    """Write JSON as whole_file does; a number that is not finite is null: what was computed must not be lost to it."""
    write_whole(path, json.dumps(finite(content), indent=1, allow_nan=False) + "\n")


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines as whole_file does.

    Raises:
        ValueError: a number that is not finite.
    """
    write_whole(path, "".join(json.dumps(record, allow_nan=False) + "\n" for record in records))


def regular(path: Path) -> Path:
    """The path, to be read to its end.

    Raises:
        OSError: a pipe or a device is there, which may have none.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "is a pipe or a device, no file", str(path))
    return path


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        OSError, ValueError: it cannot be read; it is not JSON.
    """
    try:
        return json.loads(regular(path).read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(f"{path}: nested too deeply") from error


def finite(content: Any) -> Any:
    """The same content, null in the place of every number that JSON has no word for."""
    if isinstance(content, Mapping):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path` that takes its place at the end; on an error nothing changes."""
    path = path.expanduser().absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(PART, f".{path.name}-", path.parent) as scratch:
        fresh, old = Path(scratch) / "new", Path(scratch) / "old"
        fresh.mkdir()
        yield fresh
        sync(fresh)
        if path.exists():
            path.rename(old)
        try:
            fresh.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise


MANIFEST = "manifest.json"


def kept(parent: Path, name: str, fill: Callable[[Path], None]) -> Path:
    """PARENT/NAME, filled by `fill(folder)` where it is not there yet; whoever wants it meanwhile waits.

    The folder's own manifest has the sha256 of every file: a folder that is cut or changed is filled anew.
    """
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / name
    with FileLock(parent / f".{name}.lock"):
        remove_parts(parent, name)
        if not _is_intact(folder):
            with whole_folder(folder) as fresh:
                fill(fresh)
                write_json(fresh / MANIFEST, _hashes(fresh))
    return folder


def _hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}


def _is_intact(folder: Path) -> bool:
    try:
        return bool(read_json(folder / MANIFEST) == _hashes(folder))
    except (OSError, ValueError):
        return False


def sync(folder: Path) -> None:
    """Bring every file of a folder, if it is there, to the disk."""
    for path in filter(Path.is_file, folder.rglob("*")):
        with open(path, "rb") as file:
            os.fsync(file.fileno())


def sha256_of(path: Path) -> str:
    """The file's sha256 in hex, read in pieces."""
    with open(regular(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_json(content: Any, *more: bytes) -> str:
    """sha256 in hex of anything that JSON can say (else its str), keys sorted, and of further bytes."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode())
    for piece in more:
        digest.update(piece)
    return digest.hexdigest()


def flatten(tree: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """Nested dictionaries as one, keys joined by `separator`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        inside = flatten(value, separator) if isinstance(value, Mapping) else None
        flat |= {str(key): value} if inside is None else {f"{key}{separator}{k}": v for k, v in inside.items()}
    return flat


def printable(text: str) -> str:
    r"""The text with what could steer a terminal or reorder a page shown as \xNN or \uNNNN; line ends and tabs stay."""
    return UNSHOWN.sub(lambda found: ascii(found[0])[1:-1], text)


def host() -> str:
    """This machine's name, in letters that may stand in a folder's name."""
    return re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname()) or "unnamed"


def alive(pid: int) -> bool:
    """Whether this machine runs such a process, of whatever user; one that only waits to be reaped is not alive."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return not Path("/proc/self").exists()
