"""Downstream evaluation alone, on any model: python -m glue_eval model=smollm2-135m downstream.number_of_tests=30

Takes the keys of main.py: model.name_or_path=DIR, model_device, downstream.*. Writes glue_eval/base_glue.json and the
generations in Hydra's run directory, and prints the figures.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from config.check import check_override_names
from config.compose import one_line
from config.schema import Config, register
from data.base import DataError
from report.terminal import aligned, cell, shares_table

register()

PROJECT = Path(__file__).resolve().parent.parent
RUN_DIR = "hydra.run.dir=outputs/glue_eval_${model.name}/${now:%Y-%m-%d_%H-%M-%S-%f}"
COLUMNS = ("f1", "f1_new", "mcc", "accuracy", "accuracy_new", "correct", "incorrect", "invalid", "total", "too_long")


def table(figures: dict[str, float]) -> str:
    """Flat figures as a plain-text table, a task a line."""
    names = dict.fromkeys(name for name, _, column in (key.partition("/") for key in figures) if column in COLUMNS[:-2])
    found = [(name, [figures.get(f"{name}/{column}") for column in COLUMNS]) for name in names]
    rows = [(name, *(cell(value, "" if isinstance(value, int) else ".4f") for value in row)) for name, row in found]
    lines = [aligned(("task", *COLUMNS), rows, left=(0,))] if rows else []
    lines += [shares] if (shares := shares_table(figures)) else []
    if "perplexity/perplexity" in figures:
        value, tokens = figures["perplexity/perplexity"], figures["perplexity/tokens"]
        lines.append(f"perplexity {value:.3f} over {tokens:.0f} tokens")
    return "\n".join(lines)


@hydra.main(version_base="1.3", config_path=str(PROJECT / "config"), config_name="config")
def job(cfg: DictConfig) -> None:
    """One evaluation in Hydra's run directory."""
    from glue_eval.evaluate import DownstreamEvaluator  # torch and transformers load only when a run starts
    from model import load_model, load_tokenizer, resolve_device

    with one_line(DataError, OSError):
        asked, run_dir = cast(Config, OmegaConf.to_object(cfg)), Path(HydraConfig.get().runtime.output_dir)
        evaluator = DownstreamEvaluator(asked.downstream, run_dir)
        model = load_model(asked.model, resolve_device("model_device", asked.model_device))
        figures = evaluator.evaluate(model, load_tokenizer(asked.model))
    print(table(figures))
    print(f"written to {run_dir / 'glue_eval'}")


def main() -> None:
    """Check the names on the command line, then let Hydra compose and run."""
    with one_line():
        check_override_names(sys.argv[1:])
        if not any(word.startswith("hydra.run.dir=") for word in sys.argv[1:]):
            sys.argv.append(RUN_DIR)
        job()


if __name__ == "__main__":
    main()
