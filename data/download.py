"""One address into one .part file: continued from where it stopped, tried again while failures may pass."""

from __future__ import annotations

import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from tqdm import tqdm

from .manifest import PublishedFile

BLOCK = 1 << 20
TIMEOUT = 60.0
TRIES = 5
"""How often in a row a download may fail without a new byte before it is given up."""

PASSING = {408, 425, 429, 500, 502, 503, 504}
"""HTTP answers that may be better a moment later."""


class FetchError(RuntimeError):
    """A file could not be brought; the message names the address and what to do.

    `hopeless`: no other file will fare better (no network, no space).
    """

    def __init__(self, message: str, hopeless: bool = False) -> None:
        super().__init__(message)
        self.hopeless = hopeless


class _TryAgain(Exception):
    """A failure that may pass; the message says what happened."""


@dataclass(frozen=True, slots=True)
class Download:
    """What is fetched from where to where."""

    file: PublishedFile
    url: str
    target: Path

    @property
    def part(self) -> Path:
        return self.target.with_name(self.target.name + ".part")

    @property
    def have(self) -> int:
        """Bytes that are here already."""
        return self.part.stat().st_size if self.part.exists() else 0

    def failed(self, problem: str, hopeless: bool = False) -> FetchError:
        """The error to raise, with what can be done by hand."""
        return FetchError(
            f"{self.url}: {problem}\n  by hand: fetch that address and save it as {self.target}"
            f" ({self.file.bytes} bytes, sha256 {self.file.sha256}); then run this command again",
            hopeless,
        )


def download(job: Download, wait: Callable[[float], None] = time.sleep) -> None:
    """Fill the .part file to its full size; `wait` sleeps between tries. Raises FetchError and OSError."""
    size = job.file.bytes
    failures, most = 0, job.have
    with tqdm(desc=job.target.name, total=size, unit="B", unit_scale=True, unit_divisor=1024, disable=None) as bar:
        while job.have < size:
            try:
                _receive(job, bar)
                problem = f"the connection closed after {job.have} of {size} bytes"
            except _TryAgain as error:
                problem = str(error)
            # Only more than ever before is progress: a server may send the same beginning for ever.
            failures = 0 if job.have > most else failures + 1
            most = max(most, job.have)
            if failures == TRIES:
                raise job.failed(f"{problem} (tried {TRIES} times); is there a network?", hopeless=True)
            if job.have < size:
                wait(0.5 * 2.0**failures)


def _receive(job: Download, bar: tqdm) -> None:
    """One request for the bytes still missing, written as they come. Raises as `_blocks`, and OSError."""
    for start, block in _blocks(job):
        bar.update(start + len(block) - bar.n)
        with job.part.open("ab" if start else "wb") as out:
            out.write(block)


def _blocks(job: Download) -> Iterator[tuple[int, bytes]]:
    """What the server sends, each block with its place in the file. Raises _TryAgain or FetchError."""
    try:
        with _ask(job) as reply:
            start = _start(job, reply)
            # read1, so that what came before a broken connection is kept.
            while block := reply.read1(BLOCK):
                if start + len(block) > job.file.bytes:
                    raise job.failed(f"size mismatch: more came than the {job.file.bytes} bytes expected")
                yield start, block
                start += len(block)
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            job.part.unlink(missing_ok=True)
        elif error.code not in PASSING:
            raise job.failed(f"HTTP {error.code} {error.reason}; is the address right?") from None
        raise _TryAgain(f"HTTP {error.code} {error.reason}") from None
    except (http.client.HTTPException, OSError) as error:
        raise _TryAgain(f"no answer or a broken one ({getattr(error, 'reason', error)!r})") from None


def _ask(job: Download) -> http.client.HTTPResponse:
    """Send the request, from the first missing byte on."""
    headers = {"User-Agent": "data.prepare", "Accept-Encoding": "identity"}
    if job.have:
        headers["Range"] = f"bytes={job.have}-"
    return urllib.request.urlopen(urllib.request.Request(job.url, headers=headers), timeout=TIMEOUT)


def _start(job: Download, reply: http.client.HTTPResponse) -> int:
    """The byte the reply begins with: 0 if the server ignored the range. Raises for another size or place."""
    length = reply.headers.get("Content-Length", "")
    start, total = 0, int(length) if length.isdigit() else None
    if reply.status == HTTPStatus.PARTIAL_CONTENT:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", reply.headers.get("Content-Range", ""))
        if not found or int(found[1]) != job.have:
            job.part.unlink(missing_ok=True)
            raise _TryAgain(f"asked from byte {job.have}, got {reply.headers.get('Content-Range')!r}")
        start, total = job.have, None if found[2] == "*" else int(found[2])
    if total not in (None, job.file.bytes):
        raise job.failed(f"size mismatch: the server has {total} bytes, the manifest says {job.file.bytes}")
    return start
