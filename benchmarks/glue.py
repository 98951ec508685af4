"""How much faster the batched scorer is than one example at a time: python -m benchmarks.glue [--tests N].

Both score the same tests in the same run, task by task, taking turns at going first. "Plain" is one generate per
example and one forward pass per choice, with the logits of every position, as the published program scores.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from config.check import ConfigError
from config.schema import DownstreamConfig, ModelConfig
from data.base import DataError
from glue_eval.predictions import Prediction, encode_tests, predict
from glue_eval.prompts import NEW_TOKENS, Question
from glue_eval.rows import TaskRows, source_label, validate
from glue_eval.scoring import Scored, score
from glue_eval.tasks import TASKS
from model import load_model, load_tokenizer, resolve_device

TIMES = ("plain_s", "batched_s", "plain_cpu_s", "batched_cpu_s")


@torch.inference_mode()
def plain_scores(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, question: Question) -> Scored:
    """One example alone: generate, then a whole forward pass for each choice."""
    prompt = torch.tensor([question.prompt], device=model.device)
    settings = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "pad_token_id": tokenizer.pad_token_id or 0}
    out = model.generate(prompt, attention_mask=torch.ones_like(prompt), **settings)
    log_probs = []
    for choice in question.choices:
        ids = torch.tensor([question.prompt[: choice.shared] + choice.tokens], device=model.device)
        log_p_TV = model(ids).logits[0, choice.shared - 1 : -1].float().log_softmax(-1)
        log_probs.append(log_p_TV[range(len(choice.tokens)), choice.tokens].mean().item())
    return Scored(out[0, prompt.shape[1] :].tolist(), log_probs)


def timed(run: Callable[[], list[Scored]]) -> tuple[list[Scored], float, float]:
    """What `run` returns, its wall time and its processor time (which other programs disturb less), in seconds."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start, start_cpu = time.perf_counter(), time.process_time()
    result = run()  # the scores are Python numbers: the device is done when they are there
    return result, time.perf_counter() - start, time.process_time() - start_cpu


def compare(first: Sequence[Prediction], second: Sequence[Prediction]) -> dict[str, float]:
    """How many predictions differ, and the largest relative difference of a probability."""
    pairs = list(zip(first, second, strict=True))
    probabilities = [
        pair for a, b in pairs for pair in zip(a.probabilities, b.probabilities, strict=True) if pair[0] != pair[1]
    ]
    return {
        "different_texts": sum(a.generated_text != b.generated_text for a, b in pairs),
        "different_answers": sum(a.answer != b.answer for a, b in pairs),
        "different_choices": sum(a.choice != b.choice for a, b in pairs),
        "largest_relative_difference": max((abs(a / b - 1) for a, b in probabilities), default=0.0),
    }


def measure(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: dict[str, TaskRows], batch_size: int
) -> dict[str, dict[str, float]]:
    """Both scorers over every task: seconds, ratio, and what differs between their predictions."""
    found = {}
    for turn, name in enumerate(tqdm(rows, desc="tasks", disable=None)):
        questions, _ = encode_tests(TASKS[name], rows[name], tokenizer, model.config)
        runs = {
            "plain": lambda questions=questions: [plain_scores(model, tokenizer, q) for q in questions],
            "batched": lambda questions=questions: score(model, questions, batch_size),
        }
        order = ("plain", "batched") if turn % 2 else ("batched", "plain")
        results = {kind: timed(runs[kind]) for kind in order}
        (plain, plain_s, plain_cpu_s), (batched, batched_s, batched_cpu_s) = results["plain"], results["batched"]
        said = [predict(TASKS[name], questions, scores, tokenizer) for scores in (plain, batched)]
        found[name] = {
            "tests": len(questions),
            "prompt_tokens": sum(len(q.prompt) for q in questions) / len(questions),
            "plain_s": plain_s,
            "batched_s": batched_s,
            "ratio": plain_s / batched_s,
            "plain_cpu_s": plain_cpu_s,
            "batched_cpu_s": batched_cpu_s,
            "cpu_ratio": plain_cpu_s / batched_cpu_s,
            **compare(*said),
        }
    return found


def table(found: dict[str, dict[str, float]]) -> str:
    """The measurements for people."""
    head = f"{'task':<20}{'tests':>6}{'tokens':>8}{'plain s':>10}{'batched s':>11}{'ratio':>8}"
    lines = [head + f"{'cpu ratio':>11}{'different':>11}"]
    for name, row in found.items():
        differ = int(row["different_answers"] + row["different_choices"] + row["different_texts"])
        lines.append(
            f"{name:<20}{row['tests']:>6}{row['prompt_tokens']:>8.0f}{row['plain_s']:>10.2f}"
            f"{row['batched_s']:>11.2f}{row['ratio']:>8.2f}{row['cpu_ratio']:>11.2f}{differ:>11}"
        )
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.glue", description=__doc__)
    parser.add_argument("--tests", type=int, default=100, help="tests a task (default 100)")
    parser.add_argument("--data-dir", type=Path, help="published subsets (default: shared/glue here, else the sample)")
    parser.add_argument("--model", default="embedded:smollm2-135m", help="hub id, folder or embedded:NAME")
    parser.add_argument("--tasks", nargs="+", default=DownstreamConfig().tasks)
    parser.add_argument("--batch-size", type=int, default=DownstreamConfig().batch_size)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, help="CPU threads (default: as PyTorch chooses)")
    return parser.parse_args()


def main() -> None:
    """Measure, print the table, then one JSON line."""
    args = arguments()
    beside = Path(__file__).resolve().parents[2] / "shared" / "glue"
    folder = args.data_dir or (beside if beside.is_dir() else None)
    cfg = DownstreamConfig(args.tasks, args.tests, 0, args.batch_size, str(folder) if folder else None)
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        rows = validate(cfg)
        model_cfg = ModelConfig(name=args.model, name_or_path=args.model, edit_modules=[])
        device = resolve_device("--device", args.device)
        model, tokenizer = load_model(model_cfg, device), load_tokenizer(model_cfg)
    except (ConfigError, DataError) as error:
        sys.exit(f"error: {error}")
    found = measure(model, tokenizer, rows, cfg.batch_size)
    total = {key: sum(row[key] for row in found.values()) for key in TIMES}
    ratio = total["plain_s"] / total["batched_s"]
    cpu_ratio = total["plain_cpu_s"] / total["batched_cpu_s"]
    print(table(found))
    print(
        f"all: {total['plain_s']:.1f} s plain, {total['batched_s']:.1f} s batched: {ratio:.2f} x faster "
        f"({cpu_ratio:.2f} x less processor time)"
    )
    same = not any(row[key] for row in found.values() for key in row if key.startswith("different_"))
    line = {
        "benchmark": "glue",
        "model": args.model,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "source": source_label(cfg),
        "batch_size": cfg.batch_size,
        **total,
        "ratio": ratio,
        "cpu_ratio": cpu_ratio,
        "same_predictions": same,
        "tasks": found,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
