"""How much faster the batched downstream scorer is than one example at a time: python -m benchmarks.glue."""

from __future__ import annotations

import argparse
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmarks.plain import plain_products
from benchmarks.timing import Found, command, race
from config.schema import DownstreamConfig, ModelConfig
from glue_eval.predictions import NEW_TOKENS, Question, Scored, encode_tests, predict
from glue_eval.rows import source_label, validate
from glue_eval.scoring import score
from glue_eval.tasks import TASKS
from model import load_model, load_tokenizer


@torch.inference_mode()
def plain_score(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, question: Question) -> Scored:
    """One example alone: generate, then a whole forward pass for each choice."""
    prompt = torch.tensor([question.prompt], device=model.device)
    settings = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "pad_token_id": tokenizer.pad_token_id or 0}
    out = model.generate(prompt, attention_mask=torch.ones_like(prompt), **settings)  # type: ignore[operator]
    log_probs = []
    for choice in question.choices:
        ids = torch.tensor([question.prompt[: choice.shared] + choice.tokens], device=model.device)
        log_p_TV = model(ids).logits[0, choice.shared - 1 : -1].float().log_softmax(-1)
        log_probs.append(log_p_TV[range(len(choice.tokens)), choice.tokens].mean().item())
    return Scored(out[0, prompt.shape[1] :].tolist(), log_probs)


def measure(args: argparse.Namespace, device: torch.device) -> Found:
    """All tasks both ways, and how many predictions differ."""
    cfg = DownstreamConfig(number_of_tests=2 if args.quick else args.tests, data_dir=args.data_dir)
    model_cfg = ModelConfig(name=args.model, name_or_path=args.model, edit_modules=[])
    tasks, model, tokenizer = validate(cfg), load_model(model_cfg, device), load_tokenizer(model_cfg)
    asked = {name: encode_tests(TASKS[name], rows, tokenizer, model.config)[0] for name, rows in tasks.items()}

    def plain() -> dict[str, list[Scored]]:
        with plain_products(model):
            return {name: [plain_score(model, tokenizer, question) for question in asked[name]] for name in asked}

    ways = {
        "plain": plain,
        "batched": lambda: {name: score(model, asked[name], cfg.batch_size) for name in asked},
    }
    times, found = race(ways, args.rounds, warm_up=0)

    def read(way: str) -> pd.DataFrame:
        said = [pd.DataFrame(predict(TASKS[task], asked[task], one, tokenizer)) for task, one in found[way].items()]
        return pd.concat(said)[["generated_text", "answer", "choice"]].astype(str)

    times["different"] = [int((read(way) != read("plain")).any(axis=1).sum()) for way in ways]
    return times, {"source": source_label(cfg), "asked": sum(map(len, asked.values()))}


OPTIONS: dict[str, dict[str, Any]] = {
    "--tests": {"type": int, "default": 100, "help": "tests of each task (default 100)"},
    "--data-dir": {"help": "published subsets (default: the sample)"},
    "--model": {"default": "embedded:smollm2-135m", "help": "hub id, folder or embedded:NAME"},
}
main = command(measure, options=OPTIONS)

if __name__ == "__main__":
    main()
