"""What the unedited model knows: python -m claims.knowns FILE KEY=VALUE ...  (its own process, so its memory ends)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from config.compose import dataset_config
from config.schema import Config, register
from data.batches import tokenize
from data.source import PROJECT, Source
from files import write_json
from lifelong.answers import answers
from model import load_model, load_tokenizer, resolve_device


def known(cfg: Config) -> list[dict[str, str]]:
    """The unrelated prompts of the training facts whose answer the model gives right before any edit.

    In the form of known_1000.json: prompt and prediction.
    """
    model = load_model(cfg.model, resolve_device("model_device", cfg.model_device))
    tokenizer = load_tokenizer(cfg.model)
    facts = dataset_config("facts")
    edits = Source(facts, seed=0).open(str(facts.train_path))
    asked = {edit.unrelated: edit.unrelated_answer for edit in edits if edit.unrelated and edit.unrelated_answer}
    rows = tokenize(tokenizer, list(asked.items()), cfg.dataset.prompt_format)
    found = answers(model, rows, cfg.eval.tokens_per_batch)
    right = [pair for pair, answered in zip(asked.items(), found, strict=True) if answered.all_right]
    return [{"prompt": prompt, "prediction": f" {answer.strip()}"} for prompt, answer in right]


def main(argv: Sequence[str]) -> None:
    """Write the file."""
    register()
    with initialize_config_dir(str(PROJECT / "config"), version_base="1.3"):
        cfg = OmegaConf.to_object(compose("config", overrides=list(argv[1:])))
    write_json(Path(argv[0]), known(cfg))


if __name__ == "__main__":
    main(sys.argv[1:])
