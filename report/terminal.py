"""What a run ends with on the terminal: rich tables where somebody is looking, plain text where it is piped."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

COLUMNS = ("metric", "before", "after", "change", "95 % interval", "n", "protocol")


def metric_rows(metrics: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """One row of text per metric, under COLUMNS."""
    return [
        (
            entry["metric"],
            _number(entry.get("before")),
            _number(entry["value"]),
            _number(_change(entry), "+"),
            "-" if entry["low"] is None else f"{entry['low']:.3f}-{entry['high']:.3f}",
            str(entry["n"]),
            entry["protocol"],
        )
        for entry in metrics
    ]


def _change(entry: dict[str, Any]) -> float | None:
    return entry["value"] - entry["before"] if entry.get("before") is not None else None


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.4f}"


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int]) -> str:
    """Plain text, two blanks between columns; the columns of `left` stand left, the others right."""
    table = [header, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    lines = []
    for row in table:
        cells = [
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def print_metrics(metrics: Sequence[dict[str, Any]]) -> None:
    """The final table."""
    rows = metric_rows(metrics)
    if not sys.stdout.isatty():
        print(aligned(COLUMNS, rows, left=(0, 6)))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(header_style="bold")
    for column, name in enumerate(COLUMNS):
        table.add_column(name, justify="left" if column in (0, 6) else "right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def print_examples(examples: Sequence[dict[str, Any]]) -> None:
    """A handful of edits: prompt, answer before, answer after, target."""
    for example in examples:
        print(f"\n  {example['prompt']}")
        for name in ("before", "after", "target"):
            if example[name] is not None:
                print(f"    {name:<7} {example[name]}")
    if examples:
        print()
