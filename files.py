"""Files and folders that appear whole or not at all, their hashes, and which living process they belong to."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from filelock import FileLock


@contextmanager
def whole_file(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """A file open for writing ("w" or "wb") that takes the place of `path` at the end; on an error nothing changes.

    It is on the disk before it gets its name: a reader never sees half a file, not even after a power cut.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(scratch, 0o666 & ~_umask())
        os.replace(scratch, path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: str | bytes) -> None:
    """Write text (UTF-8) or bytes as whole_file does."""
    with whole_file(path, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, content: Any) -> None:
    """Write JSON as whole_file does; a number that is not finite is null: what was computed must not be lost to it."""
    with whole_file(path) as file:
        json.dump(finite(content), file, indent=1, allow_nan=False)
        file.write("\n")


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines as whole_file does.

    Raises:
        ValueError: a number that is not finite.
    """
    with whole_file(path) as file:
        file.writelines(json.dumps(record, allow_nan=False) + "\n" for record in records)


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        OSError, ValueError: it cannot be read; it is not JSON.
    """
    return json.loads(path.read_text(encoding="utf-8"))


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
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as scratch:
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
    """Bring every file of a folder, if it is there, to the disk, where the file system can."""
    for path in (path for path in folder.rglob("*") if path.is_file()):
        with open(path, "rb") as file:
            try:
                os.fsync(file.fileno())
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                    raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sha256_of(path: Path) -> str:
    """The file's sha256 in hex, read in pieces."""
    with open(path, "rb") as file:
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
