"""Published files brought here and checked before they get their name."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path

from .download import BLOCK, Download, FetchError, download
from .manifest import BASE_URL, PublishedFile


def fetch(file: PublishedFile, root: Path, base_url: str = BASE_URL, wait: Callable[[float], None] = time.sleep) -> str:
    """Bring `file` to its place under `root`; gives "already complete" or "fetched".

    What was there is replaced only by a file of the right size and sha256. An unfinished download
    stays as NAME.part and is continued by the next call. `wait` sleeps between tries. Raises FetchError,
    and ValueError for a base URL that is not http(s) or a manifest path outside `root`.
    """
    if not base_url.startswith(("http://", "https://")):
        raise ValueError(f"base URL {base_url!r}: must begin with http:// or https://")
    target = file.below(root)
    job = Download(file, f"{base_url.rstrip('/')}/{urllib.parse.quote(file.path)}", target)
    if target.is_file() and target.stat().st_size == file.bytes and sha256_of(target) == file.sha256:
        return "already complete"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _bring(job, wait)
        os.replace(job.part, target)
    except OSError as error:
        raise _disk_error(job, error) from error
    return "fetched"


def sha256_of(path: Path) -> str:
    """The file's sha256 in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _bring(job: Download, wait: Callable[[float], None]) -> None:
    """Complete the .part file and check it; one that is wrong is thrown away and fetched once more."""
    for _ in range(2):
        if job.have > job.file.bytes:
            job.part.unlink()
        download(job, wait)
        found = sha256_of(job.part)
        if found == job.file.sha256:
            return
        job.part.unlink()
    raise job.failed(f"is not the published file: its sha256 is {found}, the manifest says {job.file.sha256}")


def _disk_error(job: Download, error: OSError) -> FetchError:
    """The error for a file that cannot be written here."""
    folder = job.target.parent
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FetchError(
            f"{job.url}: the disk is full: {job.file.bytes - job.have} bytes are still to come, {folder} has"
            f" {shutil.disk_usage(folder).free} free; make room and run this command again, it goes on from"
            f" {job.part}",
            hopeless=True,
        )
    return FetchError(f"{job.url}: cannot write {error.filename or job.target} ({error.strerror})", hopeless=True)
