"""The embedded model (for --quick a tiny one) with its editor and its edits: all that the benchmarks touch of a run."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import cache
from itertools import islice

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from config.compose import compose_config
from config.schema import Config
from data.batches import StepBatches, Tokens, step_batches, steps, tokenize
from editor.base import Editor
from editor.capture import Inputs, tokens_of
from editor.sites import find_sites
from editor.stableedit import StableEdit
from lifelong.answers import answers
from lifelong.setup import prepare
from model import load_model

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

    def batches(self) -> StepBatches:
        """The step's micro-batches, tokenized anew."""
        return step_batches(self.tokenizer, self.edits, self.cfg.dataset.batch_size)

    def rows(self) -> list[list[Tokens]]:
        """The edit, rephrased and unrelated prompts of the edits, tokenized."""
        kinds = ("prompt", "rephrase", "unrelated")
        return [tokenize(self.tokenizer, [edit.asked()[kind] for edit in self.edits]) for kind in kinds]

    def score(self, rows: Sequence[Tokens], tokens_per_batch: int) -> list[float]:
        """Token accuracy of every row."""
        return [answered.accuracy for answered in answers(self.model, rows, tokens_per_batch, inputs=self.inputs)]

    def warm_up(self) -> None:
        """Write training edits until the statistics whiten."""
        assert self.training is not None
        for edits in steps(iter(self.training), self.cfg.dataset.n_edits):
            batches = step_batches(self.tokenizer, edits, self.cfg.dataset.batch_size)
            self.editor.step(batches, warm_up=True)
        assert all(statistics.whitens for statistics in self.editor.statistics.values()), "too few rows: warm up longer"
