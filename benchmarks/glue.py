"""How much faster the batched downstream scorer is than one example at a time: python -m benchmarks.glue."""

from __future__ import annotations

import argparse
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmarks.timing import Found, command, flat, race
from config.schema import DownstreamConfig, ModelConfig
from data.source import PROJECT
from glue_eval.predictions import NEW_TOKENS, Question, Scored, encode_tests, predict
from glue_eval.rows import source_label, validate
from glue_eval.scoring import score
from glue_eval.tasks import TASKS
from model import load_model, load_tokenizer


@torch.inference_mode()
def plain_scores(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, question: Question) -> Scored:
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
    """Every task, and all of them together: seconds, and how many predictions differ."""
    beside = PROJECT.parent / "shared" / "glue"
    folder = args.data_dir or (str(beside) if beside.is_dir() else None)
    cfg = DownstreamConfig(args.tasks, 2 if args.quick else args.tests, 0, args.batch_size, folder)
    model_cfg = ModelConfig(name=args.model, name_or_path=args.model, edit_modules=[])
    rows, model, tokenizer = validate(cfg), load_model(model_cfg, device), load_tokenizer(model_cfg)

    def case(turn: int, name: str) -> dict[str, Any]:
        questions, _ = encode_tests(TASKS[name], rows[name], tokenizer, model.config)
        ways = {
            "batched": lambda: score(model, questions, cfg.batch_size),
            "plain": lambda: [plain_scores(model, tokenizer, question) for question in questions],
        }
        times, found = race({way: ways[way] for way in sorted(ways, reverse=turn % 2 == 0)}, 1, device, warm_up=0)
        said = (pd.DataFrame(predict(TASKS[name], questions, found[way], tokenizer)) for way in ways)
        batched, plain = (one[["generated_text", "answer", "choice"]].astype(str) for one in said)
        tokens = sum(len(question.prompt) for question in questions) / len(questions)
        differ = (batched != plain).any(axis=1).sum()
        return {"task": name, "tests": len(questions), "prompt_tokens": tokens, **flat(times), "different": differ}

    table = pd.DataFrame([case(*task) for task in enumerate(tqdm(rows, desc="tasks", disable=None))])
    total = table.sum(numeric_only=True).drop("prompt_tokens")
    table = pd.concat([table, pd.DataFrame([{"task": "all", **total}])])
    table["ratio"] = table["plain_s"] / table["batched_s"]
    table["cpu_ratio"] = table["plain_cpu_s"] / table["batched_cpu_s"]
    shown = ["task", "tests", "prompt_tokens", "plain_s", "batched_s", "ratio", "cpu_ratio", "different"]
    return Found(table, shown, {"model": args.model, "source": source_label(cfg), "batch_size": cfg.batch_size}, {})


main = command(
    "glue",
    __doc__,
    measure,
    tests={"type": int, "default": 100, "help": "tests a task (default 100)"},
    data_dir={"help": "published subsets (default: shared/glue here, else the sample)"},
    model={"default": "embedded:smollm2-135m", "help": "hub id, folder or embedded:NAME"},
    tasks={"nargs": "+", "default": DownstreamConfig().tasks},
    batch_size={"type": int, "default": DownstreamConfig().batch_size},
)

if __name__ == "__main__":
    main()
