"""Whether the model says anything at all before it is edited."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from config.schema import PromptFormat

log = logging.getLogger(__name__)


def warn_of_blanks(lines: Path, prompt_format: PromptFormat) -> None:
    """Warn where most generated answers to edit prompts are empty; `lines` has a line of scores per edit."""
    with open(lines, encoding="utf-8") as file:
        scores = (json.loads(line)["ES"] for line in file if '"generated"' in line)
        texts = [one["generated"] for one in scores if "generated" in one]
    blank = sum(not text.strip() for text in texts)
    if blank > len(texts) / 2:
        log.warning(
            "%d of %d answers before editing are empty: dataset.prompt_format=%s may not be how this model is asked "
            "(an instruct model wants chat)", blank, len(texts), prompt_format.value,
        )  # fmt: skip
