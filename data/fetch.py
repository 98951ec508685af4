"""Published files (manifest.json) brought here, and checked before they get their name.

A download goes into a .part file: continued from where it stopped, tried again while failures may pass.
"""

from __future__ import annotations

import errno
import http.client
import os
import shutil
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from filelock import FileLock, Timeout

from config.progress import Progress
from files import read_json, sha256_of

from .fields import KNOWNS

MANIFEST = Path(__file__).with_name("manifest.json")
BASE_URL = "https://media.githubusercontent.com/media/MINE-USTC/StableEdit/main"
"""Public address of the published program's Git LFS objects, as the manifest's `source` gives it."""
ALL = "all"
BLOCK = 1 << 20
TIMEOUT = 60.0
TRIES = 5
"""How often in a row a download may fail without a new byte before it is given up."""
PASSING = {408, 425, 429, 500, 502, 503, 504}
"""HTTP answers that may be better a moment later."""


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """One file: its path relative to the root (data/raw/...), sha256 in hex, and size."""

    path: str
    sha256: str
    bytes: int

    @property
    def dataset(self) -> str:
        """The data set it belongs to: the folder below data/raw; known_1000.json lies in none."""
        below_raw = Path(self.path).parts[2:]
        return below_raw[0] if len(below_raw) > 1 else KNOWNS.name


def published(dataset: str = ALL) -> list[PublishedFile]:
    """The published files of a data set, or of all; none for a data set that nobody published."""
    files = [PublishedFile(**entry) for entry in read_json(MANIFEST)["files"]]
    return [file for file in files if dataset in (ALL, file.dataset)]


class FetchError(RuntimeError):
    """A file could not be brought; the message names the address and what to do."""


class HopelessError(FetchError):
    """No other file will fare better either: there is no network, or no space."""


class _TryAgain(Exception):
    """A failure that may pass; the message says what happened."""


@dataclass(frozen=True, slots=True)
class Download:
    """What is fetched from where to where, by way of `part`, the file that the bytes go into until all are there."""

    file: PublishedFile
    url: str
    target: Path
    part: Path

    @property
    def complete(self) -> bool:
        """Whether the file is in its place and right."""
        there = self.target.is_file() and self.target.stat().st_size == self.file.bytes
        return there and sha256_of(self.target) == self.file.sha256

    @property
    def have(self) -> int:
        """Bytes that are here already."""
        return self.part.stat().st_size if self.part.exists() else 0

    def failed(self, problem: str, kind: type[FetchError] = FetchError) -> FetchError:
        """The error to raise, with what can be done by hand."""
        return kind(
            f"{self.url}: {problem}\n  by hand: fetch that address and save it as {self.target}"
            f" ({self.file.bytes} bytes, sha256 {self.file.sha256}); then run this command again"
        )


def fetch(file: PublishedFile, root: Path, base_url: str = BASE_URL, wait: Callable[[float], None] = time.sleep) -> str:
    """Bring `file` to its place under `root`; gives "already complete" or "fetched".

    What was there is replaced only by a file of the right size and sha256. An unfinished download stays as NAME.part
    and is continued by the next call. Raises FetchError, and ValueError for a base URL that is not http(s).
    """
    if not base_url.startswith(("http://", "https://")):
        raise ValueError(f"base URL {base_url!r}: must begin with http:// or https://")
    target = root / file.path
    url = f"{base_url.rstrip('/')}/{urllib.parse.quote(file.path)}"
    job = Download(file, url, target, target.with_name(target.name + ".part"))
    try:
        if job.complete:
            return "already complete"
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target):
            if job.complete:
                return "already complete"
            _bring(job, wait)
            os.replace(job.part, target)
    except OSError as error:
        problem = f"cannot write {error.filename or target} ({error.strerror})"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            problem = (
                f"the disk is full: {file.bytes - job.have} bytes are still to come, {target.parent} has "
                f"{shutil.disk_usage(target.parent).free} free; make room and run this command again to go on"
            )
        raise HopelessError(f"{url}: {problem}") from error
    return "fetched"


def _alone(target: Path) -> AbstractContextManager[object]:
    """The lock of a file that is fetched, held; whoever fetches the same file meanwhile says that it waits."""
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        print(f"{target}: another command is fetching it; waiting for that", file=sys.stderr, flush=True)
        return lock.acquire()


def _bring(job: Download, wait: Callable[[float], None]) -> None:
    """Complete the .part file and check it; one that is wrong is thrown away and fetched once more."""
    for _ in range(2):
        if job.have > job.file.bytes:
            job.part.unlink()
        _fill(job, wait)
        found = sha256_of(job.part)
        if found == job.file.sha256:
            return
        job.part.unlink()
    raise job.failed(f"is not the published file: its sha256 is {found}, the manifest says {job.file.sha256}")


def _fill(job: Download, wait: Callable[[float], None]) -> None:
    """Bring the .part file to its full size. Raises FetchError and OSError."""
    size = job.file.bytes
    failures, most = 0, job.have
    with Progress(desc=job.target.name, total=size, unit="B", unit_scale=True, unit_divisor=1024, disable=None) as bar:
        while job.have < size:
            try:
                for start, block in _blocks(job):
                    bar.update(start + len(block) - bar.n)
                    with job.part.open("ab" if start else "wb") as out:
                        out.write(block)
                problem = f"the connection closed after {job.have} of {size} bytes"
            except _TryAgain as error:
                problem = str(error)
            # Only more than ever before is progress: a server may send the same beginning for ever.
            failures = 0 if job.have > most else failures + 1
            most = max(most, job.have)
            if failures == TRIES:
                raise job.failed(f"{problem} (tried {TRIES} times); is there a network?", HopelessError)
            if job.have < size:
                wait(0.5 * 2.0**failures)


def _blocks(job: Download) -> Iterator[tuple[int, bytes]]:
    """What the server sends, from the first missing byte on or, if it ignores that, from 0: places and blocks.

    Raises _TryAgain, and FetchError for a file of another size.
    """
    headers, size = {"User-Agent": "data.prepare", "Accept-Encoding": "identity"}, job.file.bytes
    if job.have:
        headers["Range"] = f"bytes={job.have}-"
    try:
        with urllib.request.urlopen(urllib.request.Request(job.url, headers=headers), timeout=TIMEOUT) as reply:
            sent = reply.headers.get("Content-Range", "")
            start = job.have if reply.status == HTTPStatus.PARTIAL_CONTENT else 0
            if start and not sent.startswith(f"bytes {start}-"):
                job.part.unlink(missing_ok=True)
                raise _TryAgain(f"asked from byte {start}, got {sent!r}")
            total = sent.rpartition("/")[2] if start else reply.headers.get("Content-Length", "")
            if total.isdigit() and int(total) != size:
                raise job.failed(f"size mismatch: the server has {total} bytes, the manifest says {size}")
            # read1, so that what came before a broken connection is kept.
            while block := reply.read1(BLOCK):
                if start + len(block) > size:
                    raise job.failed(f"size mismatch: more came than the {size} bytes expected")
                yield start, block
                start += len(block)
    except urllib.error.HTTPError as error:
        problem = f"HTTP {error.code} {error.reason}"
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            job.part.unlink(missing_ok=True)
        elif error.code not in PASSING:
            raise job.failed(f"{problem}; is the address right?") from None
        raise _TryAgain(problem) from None
    except (http.client.HTTPException, OSError) as error:
        raise _TryAgain(f"no answer or a broken one ({getattr(error, 'reason', error)!r})") from None
