"""Fetch the published record files, and check record files: `python -m data.prepare --help`."""

from __future__ import annotations

import argparse
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from config.check import check_fields
from config.compose import dataset_config
from config.schema import DatasetConfig, FieldsConfig

from .base import DataError, Edit
from .fetch import ALL, BASE_URL, FetchError, fetch, published
from .fields import KNOWNS, RowReader, check_named_fields, read_known
from .source import PROJECT, RecordFile, locate

DATASETS = [*dict.fromkeys(file.dataset for file in published()), ALL]
FIELD_KEYS = [key.name for key in fields(FieldsConfig)]
SHOWN = 20
COLUMNS = ("file", "rows", "good", "bad", "prompt chars", "answer chars", "duplicate prompts")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 all is well, 1 something is not, 2 wrong usage, 130 interrupted."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.command is None:
        parser.print_help()
        return 2
    try:
        return args.command(args)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; what was fetched is kept, run the same command to go on", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m data.prepare", description="Fetch the published record files; check record files."
    )
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="{check,fetch}")
    check = commands.add_parser("check", help="validate record files row by row")
    check.set_defaults(command=_check)
    check.add_argument("dataset", help=f"config/dataset/DATASET.yaml, or {KNOWNS.name}", metavar="DATASET")
    check.add_argument("--config-dir", type=Path, metavar="DIR", help="also DIR/dataset/DATASET.yaml, as of main.py")
    check.add_argument("--path", type=Path, metavar="FILE", help="this file (default: the files that are there)")
    example = f"dataset.fields of the run, such as prompt=question answer=a; keys: {', '.join(FIELD_KEYS)}"
    check.add_argument("--fields", nargs="+", type=_field, default=[], metavar="KEY=FIELD", help=example)
    check.add_argument("--limit", type=_count, metavar="N", help="only the first N rows of each file")
    load = commands.add_parser("fetch", help="download published files, resuming, and verify their sha256")
    load.set_defaults(command=_fetch)
    load.add_argument("dataset", nargs="?", choices=DATASETS, help=", ".join(DATASETS), metavar="DATASET")
    load.add_argument("--all", action="store_true", help="every data set, as DATASET all")
    load.add_argument("--base-url", default=BASE_URL, metavar="URL", help="where data/raw/... lies (%(default)s)")
    for command in (check, load):
        command.add_argument("--root", type=Path, metavar="DIR", help="the folder that has data/raw (the project's)")
    return parser


def _field(text: str) -> tuple[str, str | None]:
    key, _, name = text.partition("=")
    if key not in FIELD_KEYS or not name:
        raise argparse.ArgumentTypeError(f"{text!r} must be KEY=FIELD, KEY one of {', '.join(FIELD_KEYS)}")
    return key, None if name == "null" else name


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of rows, at least 1")
    return int(text)


def _fetch(args: argparse.Namespace) -> int:
    dataset = ALL if args.all else args.dataset
    if dataset is None:
        raise ValueError(f"fetch: name a data set: {', '.join(DATASETS)}")
    failed = 0
    for file in published(dataset):
        try:
            print(f"{file.path}: {fetch(file, args.root or PROJECT, args.base_url)}", flush=True)
        except FetchError as error:
            print(f"error: {error}", file=sys.stderr)
            failed = 1
            if error.hopeless:
                break
    return failed


def _check(args: argparse.Namespace) -> int:
    reader = _reader(args)
    paths = [args.path] if args.path else _files(args, reader.cfg)
    if not paths:
        print(f"error: no file to check; get them with: {reader.cfg.how_to_get}", file=sys.stderr)
        return 1
    reports = [check_file(path, reader, args.limit) for path in paths]
    table = [COLUMNS, *(report.cells() for report in reports)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        print("  ".join([cells[0].ljust(widths[0]), *map(str.rjust, cells[1:], widths[1:])]))
    for report in reports:
        if report.bad:
            print(f"\n{report.path}: {report.bad} bad rows, the first {len(report.first_bad)}:")
            print(*(f"  {message}" for message in report.first_bad), sep="\n")
        if report.broken:
            print(f"\nbroken: {report.broken}")
    return int(any(report.bad or report.broken for report in reports))


def _reader(args: argparse.Namespace) -> RowReader:
    """The reader of a run of this data set, with this field map."""
    if args.dataset == KNOWNS.name:
        if args.fields:
            raise ValueError(f"--fields: {KNOWNS.name} has no field map of yours")
        return read_known
    cfg = dataset_config(args.dataset, args.config_dir)
    cfg.fields = replace(cfg.fields, **dict(args.fields))
    check_fields(cfg)
    return RowReader(cfg)


def _files(args: argparse.Namespace, cfg: DatasetConfig) -> list[Path]:
    """The files to check: of a published data set what was fetched, of any other those that its yaml names.

    They lie below --root; without one, where a run would look for them.
    """
    files = [file.below(args.root or PROJECT) for file in published(cfg.name)]
    for path in files:
        if not path.exists():
            print(f"not there, not checked: {path}")
    if files:
        return [path for path in files if path.exists()]
    named = [path for path in (cfg.train_path, cfg.valid_path) if path]
    if not named:
        raise ValueError(f"check {args.dataset}: name the file: --path FILE")
    return [args.root / path if args.root else locate(path) for path in named]


@dataclass(slots=True)
class Report:
    """What a check found in one file. Lengths are sums, in characters; `broken` is why reading stopped."""

    path: Path
    good: int = 0
    bad: int = 0
    first_bad: list[str] = field(default_factory=list)
    prompt_chars: int = 0
    answer_chars: int = 0
    duplicates: int = 0
    broken: str | None = None

    def cells(self) -> tuple[str, ...]:
        """Its line of the table, under COLUMNS."""
        means = [f"{chars / max(self.good, 1):.1f}" for chars in (self.prompt_chars, self.answer_chars)]
        counts = (self.good + self.bad, self.good, self.bad)
        return (str(self.path), *map(str, counts), *means, str(self.duplicates))


def check_file(path: Path, reader: RowReader, limit: int | None = None) -> Report:
    """Read the first `limit` rows (None: all) of a file; never raises for what is in it."""
    report, records = Report(path), RecordFile(path, reader, 0, limit, reader.cfg.how_to_get)
    # 8 bytes a prompt, not the prompts: two million of them must not fill the memory
    prompts = array("q")
    try:
        rows = islice(records.attempts(), limit)
        for found in tqdm(rows, desc=path.name, unit=" rows", leave=False, delay=1, disable=None):
            if isinstance(found, Edit):
                report.good += 1
                report.prompt_chars += len(found.prompt)
                report.answer_chars += len(found.answer)
                prompts.append(hash(found.prompt))
                continue
            report.bad += 1
            if report.bad <= SHOWN:
                report.first_bad.append(str(found).removeprefix(f"{path}: "))
        if report.good:
            good = (found for found in islice(records.attempts(), limit) if isinstance(found, Edit))
            check_named_fields(good, reader.cfg, path)
    except DataError as error:
        report.broken = str(error)
    report.duplicates = report.good - len(np.unique(prompts))
    return report


if __name__ == "__main__":
    sys.exit(main())
