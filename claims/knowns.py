"""What the unedited model knows: python -m claims.knowns FILE KEY=VALUE ...  (its own process, so its memory ends)."""

from __future__ import annotations

import sys
from pathlib import Path

from config.compose import compose_config
from config.schema import Config
from data.batches import tokenize
from files import write_json
from lifelong.answers import answers
from model import load_model, load_tokenizer, resolve_device

from .inputs import unrelated_facts


def known(cfg: Config) -> list[dict[str, str]]:
    """The unrelated facts that the model answers right before any edit, in the form of known_1000.json."""
    model, asked = load_model(cfg.model, resolve_device("model_device", cfg.model_device)), unrelated_facts()
    rows = tokenize(load_tokenizer(cfg.model), list(asked.items()), cfg.dataset.prompt_format)
    found = answers(model, rows, cfg.eval.tokens_per_batch)
    right = [pair for pair, answered in zip(asked.items(), found, strict=True) if answered.all_right]
    return [{"prompt": prompt, "prediction": f" {answer.strip()}"} for prompt, answer in right]


if __name__ == "__main__":
    write_json(Path(sys.argv[1]), known(compose_config(sys.argv[2:])))
