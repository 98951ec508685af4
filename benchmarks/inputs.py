"""What is measured on: the embedded model (for --quick a tiny one) with edits, or rows and statistics of any size.

The latter have the spectra measured on the embedded model's layer 26.
Shape suffixes: N rows, V = d_v, R directions, S any size.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor
from transformers import GPT2Tokenizer, LlamaConfig, LlamaForCausalLM

from config.compose import compose_config
from data.base import Edit
from data.batches import steps
from lifelong.session import Session, open_session
from lifelong.setup import prepare
from nets import RunningStatistics

RUN = ["model=smollm2-135m", "editor=stableedit", "editor.alpha=10", "wandb.mode=disabled"]
RUN += ["model.frozen_memory_gib=0"]  # what is measured is the work, which is repeated
KEY_NORM = 25.0
GRADIENT_NORM = 0.012
SHARE_ABOVE_FLOOR = 0.06
FLOOR = 1e-6


@cache
def tiny_model() -> tempfile.TemporaryDirectory[str]:
    """A folder with a random Llama of four layers whose tokens are bytes; gone with the process."""
    folder = tempfile.TemporaryDirectory(prefix="bench-tiny-")
    alphabet = {byte: index for index, byte in enumerate(sorted(ByteLevel.alphabet()))}
    no_special: dict[str, Any] = dict.fromkeys(("unk_token", "bos_token", "eos_token"))
    GPT2Tokenizer(alphabet, [], **no_special).save_pretrained(folder.name)
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig.from_dict(size | {"vocab_size": len(alphabet)})).save_pretrained(folder.name)
    return folder


def run_words(layers: Sequence[int], *, quick: bool) -> list[str]:
    """The overrides of a measured run; `quick` on the tiny model, at its three upper layers."""
    tiny = ["model.name=tiny", f"model.name_or_path={tiny_model().name}"] if quick else []
    sites = ",".join(f"model.layers.{layer}.mlp.down_proj" for layer in ((1, 2, 3) if quick else layers))
    return [*RUN, *tiny, f"model.edit_modules=[{sites}]"]


@contextmanager
def opened(layers: Sequence[int], device: torch.device, *, quick: bool) -> Iterator[tuple[Session, list[Edit]]]:
    """The model under editing, warmed up until it whitens, and a step's edits of `facts`.

    Each has an edit, a rephrased and an unrelated prompt.
    """
    size = ["dataset.n_edits=8", "dataset.batch_size=5", "num_seq_zsre=4"] if quick else ["num_seq_zsre=3"]
    size += ["num_seq=1", "editor.lr=1e-4", "editor.batch_size=512"]
    cfg = compose_config(["dataset=facts", *run_words(layers, quick=quick), *size])
    data, tokenizer = prepare(cfg)
    with open_session(cfg, tokenizer, device, device) as session:
        for training in steps(iter(data.training or ()), cfg.dataset.n_edits):
            session.edit(training, warm_up=True)
        yield session, [replace(edit, persona=None, mhop=None) for edit in data.edits]


def random_rows(count: int, size: int, norm: float, device: torch.device) -> Tensor:
    """Rows [N, S] of about that norm: few strong directions, variances like 1 / rank, a little noise."""
    rank = min(count, size)
    strengths_R = torch.arange(1, rank + 1, device=device).rsqrt()
    rows_NS = (torch.randn(count, rank, device=device) * strengths_R) @ torch.randn(rank, size, device=device)
    rows_NS /= rows_NS.norm(dim=1).mean() / norm
    return rows_NS.add_(torch.randn(count, size, device=device), alpha=0.05 * norm / size**0.5)


def random_statistics(d_k: int, d_v: int, device: torch.device) -> RunningStatistics:
    """Running statistics past their warm-up: 6 % of the eigenvalues above FLOOR, the others a tail below."""
    found = RunningStatistics(d_k, d_v, covariance=True, device=device)
    n, above = 4 * d_v, max(1, round(SHARE_ABOVE_FLOOR * d_v))
    values_R = torch.cat((torch.logspace(-3, -5.5, above), torch.logspace(-6.5, -9, d_v // 2))).to(device)
    scaled_RV = values_R.sqrt()[:, None] * torch.randn(len(values_R), d_v, device=device) / d_v**0.5
    covariance_VV = scaled_RV.T @ scaled_RV
    covariance_VV.diagonal().add_(1e-10)
    sums = {"mean": torch.zeros(d_k + d_v), "var": torch.full((d_k + d_v,), float(n))}
    found.load_state_dict({"n": torch.tensor([n]), **sums, "cov_value": covariance_VV * (n - d_v - 1)})
    return found
