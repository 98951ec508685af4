"""The published files: where they lie, how large they are and what they hash to (manifest.json)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

MANIFEST = Path(__file__).with_name("manifest.json")
PROJECT_ROOT = Path(__file__).resolve().parent.parent
BASE_URL = "https://media.githubusercontent.com/media/MINE-USTC/StableEdit/main"
"""Public address of the published program's Git LFS objects, as the manifest's `source` gives it."""

PUBLISHED = ("zsre", "fever", "wikibigedit", "ultraeditbench", "knowns")
ALL = "all"


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """One file: its path relative to the root (data/raw/...), sha256 in hex, and size."""

    path: str
    sha256: str
    bytes: int

    @property
    def dataset(self) -> str:
        """The data set it belongs to: the folder below data/raw; known_1000.json lies in none."""
        below_raw = PurePosixPath(self.path).parts[2:]
        return below_raw[0] if len(below_raw) > 1 else "knowns"

    def below(self, root: Path) -> Path:
        """Where the file lies under `root`. Raises ValueError if its path would leave it."""
        parts = PurePosixPath(self.path).parts
        # By its words only: a data/raw that is a link to a larger disk is the user's own doing.
        if not parts or self.path.startswith("/") or ".." in parts or "\\" in self.path or ":" in self.path:
            raise ValueError(f"manifest: path {self.path!r} must stay below the root: no '..', drive or leading '/'")
        return root.joinpath(*parts)


def published(dataset: str = ALL, manifest: Path = MANIFEST) -> list[PublishedFile]:
    """The published files of a data set, or of all. Raises ValueError for a name not in PUBLISHED."""
    if dataset not in (*PUBLISHED, ALL):
        raise ValueError(f"dataset {dataset!r}: must be one of {', '.join((*PUBLISHED, ALL))}")
    files = [PublishedFile(**entry) for entry in json.loads(manifest.read_text(encoding="utf-8"))["files"]]
    return [file for file in files if dataset in (ALL, file.dataset)]
