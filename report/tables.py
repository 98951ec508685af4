"""The final numbers as plain-text tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def downstream_table(lines: Sequence[dict[str, Any]]) -> str:
    """Downstream scores against edits: weighted f1 of the likelihood's choice per task, and the average."""
    names = list(dict.fromkeys(key.partition("/")[0] for line in lines for key in line if key.endswith("/f1_new")))
    if not names:
        return ""
    rows = [
        "downstream (f1 of the likeliest choice) against edits",
        f"{'edits':<8}" + "".join(f"{n:>10.9}" for n in names),
    ]
    for line in lines:
        cells = [line.get(f"{name}/f1_new") for name in names]
        rows.append(f"{line['edits']:<8}" + "".join(f"{'-':>10}" if c is None else f"{c:>10.4f}" for c in cells))
    return "\n".join(rows)
