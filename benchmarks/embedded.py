"""The embedded model (for --quick a tiny one) with its editor and its edits: all that the benchmarks touch of a run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import islice
from pathlib import Path
from typing import cast
from unittest.mock import patch

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from config.compose import compose_config
from config.schema import Config
from data.batches import IGNORED, Batch, StepBatches, Tokens, passes, step_batches, steps, tokenize
from editor import base
from editor.base import Editor, Stopwatch
from editor.capture import Captured, Inputs, Rows, capture_together, tokens_of
from editor.frozen import frozen_inputs, lowest_layer
from editor.sites import EditSite, find_sites
from editor.stableedit import StableEdit
from lifelong.answers import answers, probes
from lifelong.setup import prepare
from model import load_model

KINDS = ("ES", "GS", "LS")
RUN = ["model=smollm2-135m", "editor=stableedit", "editor.alpha=10", "wandb.mode=disabled"]


@cache
def tiny_model() -> tempfile.TemporaryDirectory[str]:
    """A folder with a random Llama of four layers whose tokens are bytes; gone with the process."""
    folder = tempfile.TemporaryDirectory(prefix="bench-tiny-")
    disable_progress_bar()
    alphabet = sorted(ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE({byte: index for index, byte in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder.name)
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig.from_dict(size | {"vocab_size": len(alphabet)})).save_pretrained(folder.name)
    return folder


def run_words(layers: Sequence[int], *, quick: bool) -> list[str]:
    """The overrides of a measured run; `quick` on the tiny model, at its three upper layers."""
    tiny = ["model.name=tiny", f"model.name_or_path={tiny_model().name}"] if quick else []
    sites = ",".join(f"model.layers.{layer}.mlp.down_proj" for layer in ((1, 2, 3) if quick else layers))
    return [*RUN, *tiny, f"model.edit_modules=[{sites}]"]


class Bench:
    """The model, its editor, and a step's edits of `facts`."""

    def __init__(self, layers: Sequence[int], device: torch.device, *, quick: bool, edits: int | None = None) -> None:
        size = ["dataset.n_edits=8", "dataset.batch_size=5", "num_seq_zsre=4"] if quick else ["num_seq_zsre=3"]
        words = ["dataset=facts", *run_words(layers, quick=quick), *size, "editor.lr=1e-4", "editor.batch_size=512"]
        self.cfg: Config = compose_config(words)
        count = edits or self.cfg.dataset.n_edits
        self.cfg.num_seq = -(-count // self.cfg.dataset.n_edits)
        data, self.tokenizer = prepare(self.cfg)
        self.device, self.training = device, data.training
        self.model = load_model(self.cfg.model, device)
        sites = find_sites(self.model, self.cfg.model.edit_modules)
        self.editor: Editor = StableEdit(self.cfg.editor, self.model, sites, solve_device=device)
        self.inputs: Inputs = tokens_of
        self.edits = list(islice(iter(data.edits), count))
        self.saved: dict[str, Tensor] = {}

    def batches(self) -> StepBatches:
        """The step's micro-batches, tokenized anew."""
        return step_batches(self.tokenizer, self.edits, self.cfg.dataset.batch_size)

    def rows(self) -> list[list[Tokens]]:
        """The edit, rephrased and unrelated prompts of the edits, tokenized."""
        asked = [probes(edit, mhop=False) for edit in self.edits]
        return [tokenize(self.tokenizer, [pairs[kind] for pairs in asked]) for kind in KINDS]

    def score(self, rows: Sequence[Tokens], tokens_per_batch: int) -> list[float]:
        """Token accuracy of every row."""
        found = answers(self.model, rows, tokens_per_batch, inputs=self.inputs)
        return [answered.accuracy for answered in found]

    def capture(self, batches: Sequence[Batch]) -> list[Tensor]:
        """Value gradients [N, V] of a step by site, captured as the editor does."""
        found: list[Captured] = []
        for group in passes(batches, self.cfg.editor.tokens_per_pass):
            found += capture_together(self.model, self.editor.sites, group, self.cfg.editor.token, self.inputs)
        return [torch.cat([one.rows[site].gradients_NV for one in found]) for site in range(len(self.editor.sites))]

    def keep_states(self, folder: Path | None) -> None:
        """Let capture and scoring keep the frozen layers' hidden states below a folder, or run every layer."""
        self.cfg.model.frozen_cache_dir = str(folder) if folder else None
        self.inputs = frozen_inputs(self.model, self.cfg.model)

    def frozen_layers(self) -> int:
        """Layers below the lowest site."""
        return lowest_layer(self.model, self.cfg.model.edit_modules)

    def warm_up(self) -> None:
        """Write training edits until the statistics whiten; restore() goes back to here."""
        assert self.training is not None
        for edits in steps(iter(self.training), self.cfg.dataset.n_edits):
            batches = step_batches(self.tokenizer, edits, self.cfg.dataset.batch_size)
            self.editor.step(batches, warm_up=True)
        assert all(statistics.whitens for statistics in self.editor.statistics.values()), "too few rows: warm up longer"
        self.saved = {name: tensor.clone() for name, tensor in self.editor.state_tensors().items()}

    def restore(self) -> None:
        """Weights, statistics and last shifts as before the step."""
        self.editor.load_state_tensors(self.saved)


@contextmanager
def phases_wait(device: torch.device) -> Iterator[None]:
    """While open, the phases of an editor's step wait for the device."""

    class Waiting(Stopwatch):
        @contextmanager
        def __call__(self, phase: str) -> Iterator[None]:
            with super().__call__(phase):
                yield
                if device.type == "cuda":
                    torch.cuda.synchronize(device)

    with patch.object(base, "Stopwatch", Waiting):
        yield


def bare_editor(model: nn.Module, names: Sequence[str], device: torch.device) -> StableEdit:
    """StableEdit at work on modules that no transformer surrounds."""
    cfg = compose_config(["dataset=facts", *RUN, "editor.lr=1e-6", "editor.batch_size=512"]).editor
    return StableEdit(cfg, cast(PreTrainedModel, model), find_sites(model, names), solve_device=device)


def step_of_rows(
    editor: Editor, rows_of: Callable[[EditSite], tuple[Tensor, Tensor]], micro_batches: int, device: torch.device
) -> None:
    """editor.step, its capture replaced by one that hands out ready keys and value gradients."""
    empty = Batch(*(torch.full((1, 1), value) for value in (0, 1, IGNORED)))

    def ready(_: object, sites: Sequence[EditSite], group: Sequence[Batch], *__: object) -> list[Captured]:
        return [Captured(torch.zeros((), device=device), 1, [Rows(*rows_of(site)) for site in sites]) for _ in group]

    with patch.object(base, "capture_together", ready):
        editor.step(StepBatches([empty] * micro_batches, [], []), warm_up=False)
