"""The tiny reference models and data as plain functions, and main.py as a subprocess."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from config.compose import dataset_config
from data.base import Edit
from data.batches import Batch, step_batches
from data.source import Source
from linear import use_onednn

PROJECT = Path(__file__).resolve().parent.parent
MODELS = PROJECT / "tests" / "reference" / "models"
DATA = PROJECT / "tests" / "reference" / "data"
SITES = {
    "tiny-llama": [f"model.layers.{layer}.mlp.down_proj" for layer in (1, 2, 3)],
    "tiny-gptj": [f"transformer.h.{layer}.mlp.fc_out" for layer in (1, 2, 3)],
    "tiny-gpt2": [f"transformer.h.{layer}.mlp.c_proj" for layer in (1, 2, 3)],
}


def load_tiny(name: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A tiny model, as the program loads it: eval mode, no parameter asks for gradients."""
    model = AutoModelForCausalLM.from_pretrained(MODELS / name, dtype=dtype)
    return use_onednn(model.eval().requires_grad_(False))


@cache
def tiny_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a tiny model."""
    return AutoTokenizer.from_pretrained(MODELS / name)


def tiny_edits(dataset: str = "zsre", count: int = 12) -> list[Edit]:
    """The first evaluation edits of a reference data set."""
    path = str(DATA / f"{dataset}_eval.json")
    cfg = replace(dataset_config(dataset), n_edits=1)
    return list(Source(cfg, 42).records(path, count, "num_seq"))


def tiny_batch(name: str, count: int = 5) -> Batch:
    """One micro-batch of edit prompts, of uneven lengths."""
    batch = step_batches(tiny_tokenizer(name), tiny_edits(count=count), count).edit[0]
    assert (batch.attention_BT == 0).any(), "the batch must have padding"
    return batch


def tiny_words(*more: str, dataset: str = "zsre", model: str = "tiny-llama", editor: str = "stableedit") -> list[str]:
    """Overrides of a run of a second: two warm-up steps and three steps of eight edits on a tiny model."""
    words = [f"dataset={dataset}", "model=smollm2-135m", f"editor={editor}", "wandb.mode=disabled"]
    words += ["num_seq=3", "num_seq_zsre=2", "num_seq_wikibigedit=2", "dataset.n_edits=8", "dataset.batch_size=5"]
    words += [f"dataset.train_path={DATA}/{dataset}_train.json", f"dataset.valid_path={DATA}/{dataset}_eval.json"]
    words += [
        f"model.name={model}",
        f"model.name_or_path={MODELS / model}",
        f"model.edit_modules=[{','.join(SITES[model])}]",
    ]
    words += ["model_device=cpu", "editor.lr=3e-3", "report=false", "eval.examples=2", "eval.cache_dir=null"]
    return words + (["editor.alpha=10"] if editor == "stableedit" else []) + list(more)


def run_main(*words: str, cwd: Path, python: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """`python main.py WORDS` in a folder of the test's own."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HYDRA_FULL_ERROR": "0", "COLUMNS": "100"}
    command = [sys.executable, *python, str(PROJECT / "main.py"), *words]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False)
