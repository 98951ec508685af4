"""Fetch the published record files, and check record files: `python -m data.prepare --help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from config.check import check_fields
from config.compose import dataset_config
from config.schema import DatasetConfig

from .check import check_file
from .fetch import ALL, BASE_URL, FetchError, HopelessError, fetch, published
from .fields import FIELD_KEYS, KNOWNS, RowReader, read_known
from .source import PROJECT, locate

DATASETS = [*dict.fromkeys(file.dataset for file in published()), ALL]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 all is well, 1 something is not, 2 wrong usage, 130 interrupted."""
    args = _parser().parse_args(argv)
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
    commands = parser.add_subparsers(title="commands", required=True)
    check = commands.add_parser("check", help="validate record files row by row")
    check.set_defaults(command=_check)
    check.add_argument("dataset", help=f"config/dataset/DATASET.yaml, or {KNOWNS.name}", metavar="DATASET")
    check.add_argument("words", nargs="*", help="as of the run: dataset.valid_path=FILE dataset.unrelated_suffix='?'")
    check.add_argument("--config-dir", type=Path, metavar="DIR", help="also DIR/dataset/DATASET.yaml, as of main.py")
    check.add_argument("--path", type=Path, metavar="FILE", help="this file (default: the files that are there)")
    example = f"dataset.fields of the run, such as prompt=question answer=a; keys: {', '.join(FIELD_KEYS)}"
    check.add_argument("--fields", nargs="+", type=_field, default=[], metavar="KEY=FIELD", help=example)
    load = commands.add_parser("fetch", help="download published files, resuming, and verify their sha256")
    load.set_defaults(command=_fetch)
    load.add_argument("dataset", choices=DATASETS, help="which files to fetch")
    load.add_argument("--base-url", default=BASE_URL, metavar="URL", help="where data/raw/... lies (%(default)s)")
    for command in (check, load):
        command.add_argument("--root", type=Path, metavar="DIR", help="the folder that has data/raw (the project's)")
    return parser


def _field(text: str) -> tuple[str, str | None]:
    key, _, name = text.partition("=")
    if key not in FIELD_KEYS or not name:
        raise argparse.ArgumentTypeError(f"{text!r} must be KEY=FIELD, KEY one of {', '.join(FIELD_KEYS)}")
    return key, None if name == "null" else name


def _fetch(args: argparse.Namespace) -> int:
    failed = 0
    for file in published(args.dataset):
        try:
            print(f"{file.path}: {fetch(file, args.root or PROJECT, args.base_url)}", flush=True)
        except FetchError as error:
            print(f"error: {error}", file=sys.stderr)
            failed = 1
            if isinstance(error, HopelessError):
                break
    return failed


def _check(args: argparse.Namespace) -> int:
    reader = _reader(args)
    paths = [args.path] if args.path else _files(args, reader.cfg)
    if not paths:
        print(f"error: no file to check; get them with: {reader.cfg.how_to_get}", file=sys.stderr)
        return 1
    return int(False in [check_file(path, reader) for path in paths])


def _reader(args: argparse.Namespace) -> RowReader:
    """The reader of a run of this data set, with this field map."""
    if args.dataset == KNOWNS.name:
        if args.fields or args.words:
            given = "--fields" if args.fields else args.words[0]
            raise ValueError(f"{given}: {KNOWNS.name} has no field map of yours")
        return read_known
    for word in args.words:
        if not word.startswith("dataset."):
            raise ValueError(f"{word}: must be dataset.KEY=VALUE, as a run has it")
    cfg = dataset_config(args.dataset, args.config_dir, args.words)
    cfg.fields = replace(cfg.fields, **dict(args.fields))
    check_fields(cfg)
    return RowReader(cfg)


def _files(args: argparse.Namespace, cfg: DatasetConfig) -> list[Path]:
    """The files to check: of a published data set what was fetched, of any other those that its yaml names.

    They lie below --root; without one, where a run would look for them.
    """
    if any(word.startswith("dataset.valid_path=") for word in args.words):
        return [locate(cfg.valid_path)]
    files = [(args.root or PROJECT) / file.path for file in published(cfg.name)]
    for path in files:
        if not path.exists():
            print(f"not there, not checked: {path}")
    if files:
        return [path for path in files if path.exists()]
    named = [path for path in (cfg.train_path, cfg.valid_path) if path]
    if not named:
        raise ValueError(f"check {args.dataset}: name the file: --path FILE")
    return [args.root / path if args.root else locate(path) for path in named]


if __name__ == "__main__":
    sys.exit(main())
