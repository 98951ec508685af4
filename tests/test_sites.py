"""editor/sites.py: weight layouts, exact undo, rounding, and which sites are refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from config.check import ConfigError
from config.schema import ModelConfig
from editor import sites
from editor.ridge import Shift
from editor.sites import EditSite, check_sites, find_sites
from model import model_skeleton
from tests.tiny import MODELS, SITES, load_tiny

D_K, D_V = 6, 4


def make(layout: str, dtype=torch.float32, *, masters=False) -> EditSite:
    torch.manual_seed(0)
    module = nn.Linear(D_K, D_V) if layout == "linear" else Conv1D(D_V, D_K)
    nn.init.normal_(module.weight, std=0.2)
    return EditSite("site", module.to(dtype).requires_grad_(False), masters=masters)


@pytest.mark.parametrize("layout", ["linear", "conv1d"])
def test_shift_acts_on_keys_whatever_the_layout(layout):
    """x (W + S) = x W + x S: the module's own forward pass sees the shift."""
    site, x = make(layout), torch.randn(3, D_K)
    shift = torch.randn(D_K, D_V)
    before = site.module(x)
    assert site.shape == (D_K, D_V)
    site.add(Shift(None, shift))
    torch.testing.assert_close(site.module(x), before + x @ shift)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("masters", [False, True])
@pytest.mark.parametrize("layout", ["linear", "conv1d"])
def test_restore_is_bitwise(layout, masters, dtype):
    site = make(layout, dtype, masters=masters)
    weight, saved = site.weight.clone(), site.snapshot()
    first = site.add(Shift(None, torch.randn(D_K, D_V)))
    assert not torch.equal(site.weight, weight) and first < 0.5
    changed = site.weight.clone()
    site.restore(saved)
    assert torch.equal(site.weight, weight), "a snapshot is a copy, not a view"
    assert site.module.weight.dtype == dtype
    torch.manual_seed(0)
    site.restore(saved)
    site.add(Shift(None, torch.zeros(D_K, D_V)))
    assert torch.equal(site.weight, weight) and not torch.equal(changed, weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("masters", [False, True])
@pytest.mark.parametrize("layout", ["linear", "conv1d"])
def test_a_shift_written_in_blocks_is_the_shift(layout, masters, dtype, monkeypatch):
    torch.manual_seed(1)
    shift = Shift(torch.randn(3, D_K), torch.randn(3, D_V))
    whole, cut = make(layout, dtype, masters=masters), make(layout, dtype, masters=masters)
    lost = whole.add(shift)
    monkeypatch.setattr(sites, "BLOCK", 7)
    assert cut.add(shift) == lost
    torch.testing.assert_close(cut.weight, whole.weight)
    wanted = make(layout, dtype).weight.double() + (shift.matrix().T if cut.transposed else shift.matrix())
    near = 1e-2 if dtype is torch.bfloat16 else 1e-6
    torch.testing.assert_close(whole.weight.double(), wanted.double(), rtol=near, atol=near)


@pytest.mark.parametrize("layout", ["linear", "conv1d"])
def test_lost_share_of_bfloat16(layout):
    site = make(layout, torch.bfloat16)
    site.module.weight.fill_(1.0)  # half a unit in the last place is 2^-9 above 1, 2^-10 below
    assert site.add(Shift(None, torch.full((D_K, D_V), 1e-4))).item() == 1.0
    assert (site.weight == 1).all()
    assert site.add(Shift(None, torch.full((D_K, D_V), 0.5))).item() == 0.0
    assert (site.weight == 1.5).all()
    half = torch.full((D_K, D_V), 1e-5)
    half[: D_K // 2] = 1.0
    assert site.add(Shift(None, half)).item() == 0.5


def test_lost_share_counts_only_wanted_changes():
    site = make("linear")
    assert site.add(Shift(None, torch.zeros(D_K, D_V))).item() == 0.0
    one = torch.zeros(D_K, D_V)
    one[2, 3] = 1.0
    assert site.add(Shift(None, one)).item() == 0.0


@pytest.mark.parametrize("layout", ["linear", "conv1d"])
def test_masters_recover_what_bfloat16_loses(layout):
    plain, mastered = make(layout, torch.bfloat16), make(layout, torch.bfloat16, masters=True)
    for site in (plain, mastered):
        site.module.weight.fill_(1.0)
    mastered.master.fill_(1.0)
    shift = torch.full((D_K, D_V), 2e-4)
    for _ in range(500):
        plain.add(Shift(None, shift))
        mastered.add(Shift(None, shift))
    assert (plain.weight == 1).all(), "every shift is below half a unit"
    torch.testing.assert_close(
        mastered.weight.float(), torch.full_like(mastered.weight, 1.1).float(), rtol=4e-3, atol=0
    )
    torch.testing.assert_close(mastered.master, torch.full_like(mastered.master, 1.1), rtol=1e-4, atol=0)


def test_masters_of_float32_weights_change_nothing():
    plain, mastered = make("linear"), make("linear", masters=True)
    for seed in range(20):
        shift = torch.randn(D_K, D_V, generator=torch.Generator().manual_seed(seed))
        plain.add(Shift(None, shift))
        mastered.add(Shift(None, shift))
    assert torch.equal(plain.weight, mastered.weight)


@pytest.fixture(params=["loaded", "skeleton"])
def build(request):
    """A model with weights, and the one without that the run checks before it loads anything."""
    if request.param == "loaded":
        return load_tiny
    return lambda name: model_skeleton(
        ModelConfig(name=name, name_or_path=str(MODELS / name), edit_modules=SITES[name])
    )


@pytest.mark.parametrize("name", list(SITES))
def test_good_sites_pass_in_the_order_given(build, name):
    model = build(name)
    check_sites(model, SITES[name])
    assert [site.name for site in find_sites(model, SITES[name][::-1])] == SITES[name][::-1]
    assert {site.shape for site in find_sites(model, SITES[name])} == {(112, 48)}


@pytest.mark.parametrize(
    ("name", "sites", "parts"),
    [
        (
            "tiny-llama",
            ["model.layers.1.mlp.down_prj"],
            ["model.layers.1.mlp.down_prj", "model.layers.1.mlp.down_proj"],
        ),
        ("tiny-llama", ["model.layers.9.mlp.down_proj"], ["no module model.layers.9", "model.layers.3.mlp.down_proj"]),
        ("tiny-gptj", ["transformer.h.1.mlp.fcout"], ["transformer.h.1.mlp.fc_out"]),
        (
            "tiny-llama",
            ["model.layers.1.mlp"],
            ["LlamaMLP", "neither nn.Linear nor Conv1D", "model.layers.1.mlp.gate_proj"],
        ),
        ("tiny-llama", ["model.embed_tokens"], ["Embedding", "neither nn.Linear nor Conv1D"]),
        ("tiny-gpt2", ["transformer.ln_f"], ["LayerNorm", "neither nn.Linear nor Conv1D"]),
        ("tiny-gpt2", ["lm_head"], ["lm_head is tied to", "transformer.wte"]),
        ("tiny-llama", [SITES["tiny-llama"][0]] * 2, [SITES["tiny-llama"][0], "named twice"]),
    ],
)
def test_bad_sites_are_refused(build, name, sites, parts):
    with pytest.raises(ConfigError) as error:
        check_sites(build(name), sites)
    for part in ["model.edit_modules", *parts]:
        assert part in str(error.value)


def test_the_untied_head_may_be_edited(build):
    check_sites(build("tiny-llama"), ["lm_head"])
