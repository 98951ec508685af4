"""Power cuts: a run is killed, and of every file only what was on the disk is sure to be left.

In the run's process os.fsync notes the file's content as being on the disk, and does no more. After the kill
each file whose content is not so noted is left whole, as it was at its last fsync, cut somewhere behind that,
with zeros behind that, or (if it never was synced) not at all. Names and renames are kept in their order, as
journals of ext4 and xfs keep them, but for the newest checkpoint's, which may be lost.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from tests.torture.bench import Bench, Lane, Outcome
from tests.torture.kills import CACHES


def recorder(disk: Path) -> Callable[[], None]:
    """What a run's process calls first: from then on os.fsync keeps contents in `disk`, by inode."""

    def synced(file: int) -> None:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            return
        path, kept = Path(os.readlink(f"/proc/self/fd/{file}")), disk / str(found.st_ino)
        with suppress(FileExistsError):
            os.link(path, disk / f"{found.st_ino}.held")  # nobody else gets its number
        scratch = disk / f"{found.st_ino}.{os.getpid()}"
        scratch.write_bytes(path.read_bytes())
        os.replace(scratch, kept)

    def install() -> None:
        os.fsync = synced

    return install


def cut(root: Path, disk: Path, generator: random.Random) -> None:
    """Make of every file below `root` what a power cut may leave of it."""
    for path in sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink()):
        now, kept = path.read_bytes(), disk / str(path.stat().st_ino)
        sure = kept.read_bytes() if kept.is_file() else None
        if now in (sure, b""):
            continue
        left = remains(now, sure, generator)
        if left is None:
            path.unlink()
        else:
            path.write_bytes(left)
            (disk / f"{path.stat().st_ino}.held").exists() or os.link(path, disk / f"{path.stat().st_ino}.held")
            kept.write_bytes(left)
    newest = sorted(root.glob("run/checkpoints/[0-9]*"))[-1:]
    if newest and generator.random() < 0.15:
        shutil.rmtree(newest[0])


def remains(now: bytes, sure: bytes | None, generator: random.Random) -> bytes | None:
    """One of the things that can be left of a content of which `sure` was synced; None for no file."""
    way = generator.choice(["whole", "synced", "cut", "zeros", "gone"])
    if way == "whole":
        return now
    if way == "gone" and sure is None:
        return None
    before = sure or b""
    if not now.startswith(before):  # written over: the old content, or the new one
        return generator.choice([before, now])
    length = generator.randint(len(before), len(now))
    return {"cut": now[:length], "zeros": now[:length].ljust(len(now), b"\0")}.get(way, before)


def power(bench: Bench, kills: int) -> list[Outcome]:
    """Runs with caches of their own, one at a time, that lose what was not synced at every kill."""
    outcome = Outcome("power cut")
    argvs = {editor: [*bench.argv(editor), *CACHES] for editor in bench.editors}
    wholes = {editor: bench.whole(f"{editor} with caches", argv, outcome) for editor, argv in argvs.items()}
    moments = bench.moments(kills, max(seconds for _, seconds in wholes.values()))
    while moments:
        editor = bench.generator.choice(bench.editors)
        folder, disk = bench.fresh("power"), bench.fresh("disk")
        argv = [word.format(shared=folder / "shared") for word in argvs[editor]]
        lane = Lane(argv, folder / "run", editor)
        ended = bench.torment(
            [lane], moments, outcome, prepare=recorder(disk), after_kill=partial(cut, folder, disk, bench.generator)
        )
        bench.settle(lane, ended["run"], wholes[editor][0], outcome, may_refuse=True)
        shutil.rmtree(disk)
    return [outcome]
