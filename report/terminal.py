"""Numbers as text: what a run ends with on the terminal, and the rows of the tables of the page."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from files import printable
from report.metrics import says_little

COLUMNS = ("metric", "before", "after", "gain", "95 % interval", "n", "protocol")


def cell(value: float | None, form: str = ".4f", missing: str = "-") -> str:
    """A number for people."""
    return missing if value is None else format(value, form)


def metric_rows(
    metrics: Sequence[Mapping[str, Any]], between: str = "-", form: str = ".3f", count: str = "", missing: str = "-"
) -> list[tuple[str, ...]]:
    """One row of text per metric of results.json, under COLUMNS; how intervals, n and what is missing are written."""
    rows: list[tuple[str, ...]] = []
    for entry in metrics:
        value, before, low, high = (entry.get(name) for name in ("value", "before", "low", "high"))
        change = None if value is None or before is None else value - before
        numbers = (cell(before, ".4f", missing), cell(value, ".4f", missing), cell(change, "+.4f", missing))
        interval = missing if low is None or high is None else f"{low:{form}}{between}{high:{form}}"
        rows.append((entry["metric"], *numbers, interval, cell(entry.get("n"), count, missing), entry["protocol"]))
    return rows


def remarks(results: Mapping[str, Any]) -> list[str]:
    """Lines beneath the final table: how full the sites are, how edits of each age are kept, what says little."""
    lines, load, ages = [], results.get("load"), results.get("retention_by_age") or []
    if load:
        lines.append(
            f"load {load['load']:.3g}: {load['edits']:,} edits / {load['d_k']:,}, d_k of {load['sites']} sites"
        )
    if len(ages) > 1:
        told = (f"{row['from']:,}-{row['to']:,} ago {row['ES']:.4f} ({row['n']:,})" for row in ages)
        lines.append(f"ES by age, in edits: {', '.join(told)}")
    if ((results.get("config") or {}).get("dataset") or {}).get("locality") == "neighbour":
        lines.append("LS: near neighbours of the edited facts, not random questions (dataset.locality)")
    lines += judge_remark(results.get("judge") or {})
    before = {row["metric"]: row.get("before") for row in results.get("metrics", [])}
    return lines + [words for words in (says_little(before),) if words]


def judge_remark(judge: Mapping[str, Any]) -> list[str]:
    """How far the judge agrees with exact match, or why it is left out."""
    if "failed" in judge:
        return [f"judge: left out ({printable(judge['failed'])})"]
    if judge.get("agreement") is None:
        return []
    unclear = f"; {judge['unclear']} replies were neither yes nor no" if judge["unclear"] else ""
    return [
        f"judge: agrees with exact match on {judge['agreement']:.1%} of {judge['n']:,} answers (yes to "
        f"{judge['yes_not_exact']} that do not match, no to {judge['no_but_exact']} that do){unclear}"
    ]


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int]) -> str:
    """Plain text, two blanks between columns; the columns of `left` stand left, the others right."""
    columns = []
    for place, column in enumerate(zip(header, *rows, strict=True)):
        width = max(map(len, column))
        columns.append([text.ljust(width) if place in left else text.rjust(width) for text in column])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def downstream_table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Downstream scores against edits: weighted f1 of the likelihood's choice per task, and the average."""
    names = list(dict.fromkeys(key.partition("/")[0] for line in lines for key in line if key.endswith("/f1_new")))
    parts = [shares_table(lines[-1])] if lines else []
    if names:
        rows = [(str(line["edits"]), *(cell(line.get(f"{name}/f1_new")) for name in names)) for line in lines]
        table = aligned(("edits", *names), rows, left=(0,))
        parts.insert(0, f"downstream (f1 of the likeliest choice) against edits\n{table}")
    told = [(line["edits"], line["perplexity/perplexity"]) for line in lines if "perplexity/perplexity" in line]
    if told:
        parts.append(f"perplexity of the text, by edits: {', '.join(f'{n:,}: {cell(value)}' for n, value in told)}")
    return "\n".join(filter(None, parts))


def shares_table(figures: Mapping[str, Any]) -> str:
    """Accuracies of the downstream tasks (lm_eval: each task's first metric) with Wilson's interval and n."""
    rows = []
    for key, value in figures.items():
        task, _, name = key.partition("/")
        if name in ("accuracy_new", "score") and f"{task}/total" in figures:
            low, high = (figures.get(f"{key}_{end}") for end in ("low", "high"))
            span = "-" if low is None or high is None else f"{low:.3f}-{high:.3f}"
            rows.append((task, cell(value), span, f"{figures[f'{task}/total']:,}"))
    return aligned(("task", "accuracy", "95 % interval", "n"), rows, left=(0,)) if rows else ""


def print_metrics(metrics: Sequence[Mapping[str, Any]]) -> None:
    """The final table: a rich one where somebody is looking, plain text where it is piped."""
    rows = metric_rows(metrics)
    if not sys.stdout.isatty():
        print(aligned(COLUMNS, rows, left=(0, 6)))
        return
    from rich.console import Console
    from rich.table import Column, Table

    heads = [Column(name, justify="left" if place in (0, 6) else "right") for place, name in enumerate(COLUMNS)]
    table = Table(*heads, header_style="bold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def print_examples(examples: Sequence[Mapping[str, Any]]) -> None:
    """A handful of edits: prompt, answer before, answer after, target."""
    for example in examples:
        print(f"\n  {printable(example['prompt'])}")
        for name in ("before", "after", "target"):
            if example[name] is not None:
                print(f"    {name:<7} {printable(example[name])}")
    if examples:
        print()
