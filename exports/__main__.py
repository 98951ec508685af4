"""Saved models on the command line: python -m exports ask|apply-delta ...   (python -m exports --help)."""

from __future__ import annotations

import argparse
import re
import sys

from config.check import ConfigError, RunError
from config.schema import PromptFormat
from data.base import DataError
from files import printable

KEY = re.compile(r"^(model\.name_or_path=|dataset\.prompt_format=chat: )")  # a run's keys, which are no words of ours


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(prog="python -m exports", description="Look at and complete saved models.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    ask = commands.add_parser("ask", help="put prompts to a saved model and to its base, and print both answers")
    ask.add_argument("model", metavar="DIR", help="a saved model, a delta, or embedded:smollm2-135m")
    ask.add_argument("prompts", metavar="PROMPT", nargs="+", help="what to ask; quote it")
    ask.add_argument("--base", help="the model to compare with (default: the one that DIR was made from; none: no one)")
    formats = [kind.value for kind in PromptFormat]
    shown = "how the prompt is shown (default: %(default)s: as facts were edited, else raw)"
    ask.add_argument("--format", default="auto", choices=formats, help=shown)
    ask.add_argument("--max-new-tokens", type=_whole, default=24, metavar="N", help="longest answer (default: 24)")
    ask.add_argument("--device", default="auto", help="auto, cpu or cuda:N (default: %(default)s)")
    ask.set_defaults(run=_ask)

    apply = commands.add_parser("apply-delta", help="make a whole model of a delta (export=delta) and its base")
    apply.add_argument("base", metavar="BASE", help="the model it was made from: folder, hub id or embedded:NAME")
    apply.add_argument("delta", metavar="DELTA", help="the folder that export=delta wrote")
    apply.add_argument("out", metavar="OUT", help="the folder for the whole model; new, empty or a saved model")
    apply.set_defaults(run=_apply)
    return top


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be a whole number above 0")
    return int(text)


def _ask(args: argparse.Namespace) -> None:
    from exports.ask import Question, ask, shown  # torch and transformers load only when a model is asked
    from model import resolve_device

    device = resolve_device("--device", args.device)
    answers = ask(args.model, Question(args.prompts, PromptFormat(args.format), args.max_new_tokens, device), args.base)
    if answers.base_name:
        print(printable(f"base    {answers.base_name}"))
    print(printable(f"edited  {args.model}\n\n{shown(args.prompts, answers)}"))
    if answers.note:
        print(printable(f"\n{answers.note}"), file=sys.stderr)


def _apply(args: argparse.Namespace) -> None:
    from exports.delta import apply_delta

    print(f"saved in {apply_delta(args.base, args.delta, args.out)}")


def main() -> None:
    """Run one command; bad input ends with one line and status 1."""
    args = parser().parse_args()
    try:
        args.run(args)
    except (ConfigError, DataError, RunError, OSError) as error:
        sys.exit(printable(f"error: {KEY.sub('', str(error))}"))


if __name__ == "__main__":
    main()
