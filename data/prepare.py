"""Fetch the published record files, and check record files: `python -m data.prepare --help`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from config.check import check_fields
from config.compose import dataset_config
from config.schema import FieldsConfig

from .check import check_file, default_files, table
from .fetch import ALL, BASE_URL, FetchError, fetch, published
from .fields import KNOWNS, RowReader, read_known
from .source import PROJECT

FIELD_KEYS = tuple(field.name for field in dataclasses.fields(FieldsConfig))


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
    _add_check(commands.add_parser("check", help="validate record files row by row"))
    _add_fetch(commands.add_parser("fetch", help="download published files, resuming, and verify their sha256"))
    for command in commands.choices.values():
        command.add_argument("--root", type=Path, metavar="DIR", help="the folder that has data/raw (the project's)")
    return parser


def _add_check(check: argparse.ArgumentParser) -> None:
    check.add_argument("dataset", help=f"config/dataset/DATASET.yaml, or {KNOWNS.name}", metavar="DATASET")
    check.add_argument("--config-dir", type=Path, metavar="DIR", help="also DIR/dataset/DATASET.yaml, as of main.py")
    check.add_argument("--path", type=Path, metavar="FILE", help="this file (default: the files that are there)")
    check.add_argument(
        "--fields",
        nargs="+",
        type=_field,
        default=[],
        metavar="KEY=FIELD",
        help=f"dataset.fields of the run, such as prompt=question answer=a; keys: {', '.join(FIELD_KEYS)}",
    )
    check.add_argument("--limit", type=_count, metavar="N", help="only the first N rows of each file")
    check.set_defaults(command=_check)


def _add_fetch(load: argparse.ArgumentParser) -> None:
    names = [*dict.fromkeys(file.dataset for file in published(ALL)), ALL]
    load.add_argument("dataset", nargs="?", choices=names, help=", ".join(names), metavar="DATASET")
    load.add_argument("--all", action="store_true", help="every data set, as DATASET all")
    load.add_argument("--base-url", default=BASE_URL, metavar="URL", help="where data/raw/... lies (%(default)s)")
    load.set_defaults(command=_fetch, names=names)


def _field(text: str) -> tuple[str, str | None]:
    key, _, name = text.partition("=")
    if key not in FIELD_KEYS or not name:
        raise argparse.ArgumentTypeError(f"{text!r} must be KEY=FIELD, KEY one of {', '.join(FIELD_KEYS)}")
    return key, None if name == "null" else name


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of rows, at least 1")
    return int(text)


def _reader(args: argparse.Namespace) -> RowReader:
    """The reader of a run of this data set, with this field map."""
    if args.dataset == KNOWNS.name:
        if args.fields:
            raise ValueError(f"--fields: {KNOWNS.name} has no field map of yours")
        return read_known
    cfg = dataset_config(args.dataset, args.config_dir)
    cfg.fields = dataclasses.replace(cfg.fields, **dict(args.fields))
    check_fields(cfg)
    return RowReader(cfg)


def _check(args: argparse.Namespace) -> int:
    reader = _reader(args)
    paths, absent = ([args.path], []) if args.path else default_files(reader.cfg, args.root)
    for path in absent:
        print(f"not there, not checked: {path}")
    if not paths and not absent:
        raise ValueError(f"check {args.dataset}: name the file: --path FILE")
    if not paths:
        print(f"error: no file to check; get them with: {reader.cfg.how_to_get}", file=sys.stderr)
        return 1
    reports = [check_file(path, reader, args.limit) for path in paths]
    print(table(reports))
    return 0 if all(report.ok for report in reports) else 1


def _fetch(args: argparse.Namespace) -> int:
    dataset = ALL if args.all else args.dataset
    if dataset is None:
        raise ValueError(f"fetch: name a data set: {', '.join(args.names)}")
    failed = 0
    for file in published(dataset):
        try:
            print(f"{file.path}: {fetch(file, args.root or PROJECT, args.base_url)}", flush=True)
        except FetchError as error:
            print(f"error: {error}", file=sys.stderr)
            failed += 1
            if error.hopeless:
                break
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
