"""What happens to a site's weight, for processes that hold the same one: thin factors where these suffice."""

from __future__ import annotations

from typing import Literal
from weakref import ref

from torch import Tensor

from editor.ridge import Shift

SavedSite = tuple[Tensor, Tensor | None]
"""A site's weight, and its float32 master where it has one."""
Change = Shift | SavedSite | Literal["keep", "back"]
"""A shift that was added, what the weight became, a copy that was made, the return to the last copy that was made."""


class Journal:
    """The changes of one site since they were last taken, never more bytes than the weight has."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.changes: list[Change] = []
        self.whole = False
        """Whether the weight itself has to be taken."""
        self._copy: ref[Tensor] | None = None

    def added(self, shift: Shift) -> None:
        """A shift was added to the weight."""
        self.changes += [] if self.whole else [shift]
        if sum(one.nbytes for one in self.changes if isinstance(one, Shift)) >= self.most:
            self._lose()

    def copied(self, copy: SavedSite) -> None:
        """A copy was made of the weight."""
        self._copy = None if self.whole else ref(copy[0])
        if not self.whole:
            self.changes = [*(one for one in self.changes if one != "keep"), "keep"]

    def put_back(self, copy: SavedSite) -> None:
        """The weight became as a copy has it."""
        if self._copy is None or self._copy() is not copy[0]:
            self._lose()
        elif "keep" in self.changes:
            del self.changes[self.changes.index("keep") + 1 :]
        else:
            self.changes = ["back"]

    def take(self, now: SavedSite) -> list[Change]:
        """What leads from the weight as it was last taken to the one that is there now."""
        found: list[Change] = [now] if self.whole else self.changes
        self.changes, self.whole = [], False
        return found

    def _lose(self) -> None:
        self.changes, self.whole, self._copy = [], True, None
