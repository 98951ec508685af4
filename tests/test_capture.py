"""editor/capture.py: what forward hooks give equals plain autograd with weight gradients, on every tiny model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from config.choices import TokenRows
from data.batches import IGNORED, join, passes, step_batches
from editor.capture import answer_logits, capture_together, weight_gradients
from editor.sites import find_sites
from tests.tiny import SITES, load_tiny, tiny_batch, tiny_edits, tiny_tokenizer

NEAR = 1e-5
MODELS = list(SITES)
LAYOUTS = [(name, SITES[name]) for name in MODELS] + [
    ("tiny-llama", ["model.layers.2.mlp.up_proj", "model.layers.2.mlp.gate_proj", "model.layers.1.mlp.down_proj"]),
    ("tiny-llama", ["lm_head", "model.layers.3.self_attn.o_proj", "model.layers.0.self_attn.q_proj"]),
]


def relative(actual, expected):
    return ((actual.double() - expected.double()).norm() / expected.double().norm()).item()


def weight_view(site, tensor):
    """A weight-shaped tensor as [d_k, d_v]."""
    return tensor.T if site.transposed else tensor


def plain_autograd(name, site_names, batch):
    """Loss, W.grad [d_k, d_v], inputs and output gradients of every site by plain autograd, float64."""
    model = load_tiny(name).double()
    sites = find_sites(model, site_names)
    inputs, outputs = {}, {}
    for site in sites:
        site.module.weight.requires_grad_(True)

        def keep(_, args, output, key=site.name):
            output.retain_grad()
            inputs[key], outputs[key] = args[0].detach(), output

        site.module.register_forward_hook(keep)
    logits = model(input_ids=batch.input_ids_BT, attention_mask=batch.attention_BT, use_cache=False).logits
    mask = batch.labels_BT != IGNORED
    loss = cross_entropy(logits[mask], batch.labels_BT[mask])
    loss.backward()
    grads = {site.name: weight_view(site, site.module.weight.grad) for site in sites}
    return loss.item(), grads, inputs, {key: value.grad for key, value in outputs.items()}


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules())


def assert_untouched(model: nn.Module):
    assert hooks(model) == 0
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(("name", "site_names"), LAYOUTS)
def test_all_rows_make_the_weight_gradient(name, site_names):
    batch, model = tiny_batch(name), load_tiny(name)
    if "lm_head" in site_names:
        site_names = site_names[1:]  # the head sees only answer positions: its rows are tested below
    loss, grads, _, _ = plain_autograd(name, site_names, batch)
    captured = capture_together(model, find_sites(model, site_names), [batch], TokenRows.all)[0]
    assert captured.loss.item() == pytest.approx(loss, rel=NEAR)
    for site_name, rows in zip(site_names, captured.rows, strict=True):
        assert len(rows.keys_NK) == len(rows.gradients_NV) == batch.attention_BT.sum()
        assert rows.keys_NK.dtype == rows.gradients_NV.dtype == torch.float32
        assert relative(rows.keys_NK.T.double() @ rows.gradients_NV.double(), grads[site_name]) < NEAR, site_name
    assert_untouched(model)


@pytest.mark.parametrize("token", list(TokenRows))
@pytest.mark.parametrize("name", MODELS)
def test_rows_are_those_of_plain_autograd(name, token):
    batch, model = tiny_batch(name), load_tiny(name)
    _, _, inputs, gradients = plain_autograd(name, SITES[name], batch)
    captured = capture_together(model, find_sites(model, SITES[name]), [batch], token)[0]
    mask = batch.labels_BT != IGNORED if token is TokenRows.ans else batch.attention_BT == 1
    assert captured.tokens == (batch.labels_BT != IGNORED).sum()
    for site_name, rows in zip(SITES[name], captured.rows, strict=True):
        assert relative(rows.keys_NK, inputs[site_name][mask]) < NEAR, site_name
        assert relative(rows.gradients_NV, gradients[site_name][mask]) < NEAR, site_name


@pytest.mark.parametrize("name", MODELS)
def test_answer_rows_make_the_last_layers_gradient(name):
    """Nothing above the last layer mixes positions: its weight gradient comes from answer rows alone."""
    batch, model = tiny_batch(name), load_tiny(name)
    _, grads, _, _ = plain_autograd(name, SITES[name], batch)
    rows = capture_together(model, find_sites(model, SITES[name]), [batch], TokenRows.ans)[0].rows
    assert relative(rows[-1].keys_NK.T @ rows[-1].gradients_NV, grads[SITES[name][-1]]) < NEAR
    assert relative(rows[0].keys_NK.T @ rows[0].gradients_NV, grads[SITES[name][0]]) > 0.01


def test_padding_rows_carry_no_gradient():
    batch = tiny_batch("tiny-llama")
    _, _, _, gradients = plain_autograd("tiny-llama", SITES["tiny-llama"], batch)
    for gradient in gradients.values():
        assert not gradient[batch.attention_BT == 0].any()


@pytest.mark.parametrize("name", MODELS)
def test_answer_logits_are_the_full_logits_there(name):
    batch, model = tiny_batch(name), load_tiny(name)
    with torch.no_grad():
        full = model(input_ids=batch.input_ids_BT, attention_mask=batch.attention_BT).logits
        logits, labels = answer_logits(model, batch)
    mask = batch.labels_BT != IGNORED
    assert torch.equal(labels, batch.labels_BT[mask])
    torch.testing.assert_close(logits, full[mask], rtol=1e-5, atol=1e-5)
    assert_untouched(model)


@pytest.mark.parametrize(("name", "site_names"), LAYOUTS)
def test_weight_gradients_equal_weight_grad(name, site_names):
    batch, model = tiny_batch(name), load_tiny(name)
    loss, grads, _, _ = plain_autograd(name, site_names, batch)
    found_loss, found = weight_gradients(model, find_sites(model, site_names), batch, cross_entropy)
    assert found_loss.item() == pytest.approx(loss, rel=NEAR)
    for site_name, gradient in zip(site_names, found, strict=True):
        assert relative(gradient, grads[site_name]) < NEAR, site_name
    assert_untouched(model)


def test_the_head_may_be_a_site():
    """An untied lm_head only ever sees answer positions."""
    batch, model = tiny_batch("tiny-llama"), load_tiny("tiny-llama")
    _, grads, _, _ = plain_autograd("tiny-llama", ["lm_head"], batch)
    rows = capture_together(model, find_sites(model, ["lm_head"]), [batch], TokenRows.ans)[0].rows[0]
    assert relative(rows.keys_NK.T @ rows.gradients_NV, grads["lm_head"]) < NEAR


def test_order_of_the_rows_is_that_of_the_sites():
    batch, model = tiny_batch("tiny-llama"), load_tiny("tiny-llama")
    names = SITES["tiny-llama"]
    forth = capture_together(model, find_sites(model, names), [batch], TokenRows.ans)[0].rows
    back = capture_together(model, find_sites(model, names[::-1]), [batch], TokenRows.ans)[0].rows
    for one, other in zip(forth, back[::-1], strict=True):
        assert torch.equal(one.keys_NK, other.keys_NK) and torch.equal(one.gradients_NV, other.gradients_NV)


def test_capture_works_where_gradients_are_off():
    batch, model = tiny_batch("tiny-gptj"), load_tiny("tiny-gptj")
    with torch.no_grad():
        rows = capture_together(model, find_sites(model, SITES["tiny-gptj"]), [batch], TokenRows.ans)[0].rows
    assert rows[0].gradients_NV.any()


@pytest.mark.parametrize("name", MODELS)
def test_hooks_go_when_the_forward_pass_fails(name):
    batch, model = tiny_batch(name), load_tiny(name)
    sites = find_sites(model, SITES[name])
    broken = replace(batch, input_ids_BT=batch.input_ids_BT + 10_000)
    with pytest.raises(IndexError):
        capture_together(model, sites, [broken], TokenRows.ans)[0]
    assert_untouched(model)

    def fail(*_):
        raise RuntimeError("loss failed")

    with pytest.raises(RuntimeError, match="loss failed"):
        weight_gradients(model, sites, batch, fail)
    assert_untouched(model)


def test_bfloat16_model_gives_float32_rows():
    batch, model = tiny_batch("tiny-llama"), load_tiny("tiny-llama", torch.bfloat16)
    captured = capture_together(model, find_sites(model, SITES["tiny-llama"]), [batch], TokenRows.ans)[0]
    for rows in captured.rows:
        assert rows.keys_NK.dtype == rows.gradients_NV.dtype == torch.float32
        assert torch.isfinite(rows.gradients_NV).all() and rows.gradients_NV.any()


def test_logits_of_a_bfloat16_model_are_not_rounded_to_it():
    batch, model = tiny_batch("tiny-llama"), load_tiny("tiny-llama", torch.bfloat16)
    logits_MW, labels_M = answer_logits(model, batch)
    rounded_BTW = model(input_ids=batch.input_ids_BT, use_cache=False).logits
    assert logits_MW.dtype == torch.float32 and (logits_MW.bfloat16() != logits_MW).any()
    rounded_MW = rounded_BTW[batch.labels_BT != IGNORED].float()
    assert (rounded_MW - logits_MW).norm() < 2**-7 * logits_MW.norm() and len(labels_M) == len(logits_MW)


@pytest.mark.parametrize("token", list(TokenRows))
@pytest.mark.parametrize("name", list(SITES))
def test_micro_batches_in_one_pass_give_what_passes_of_their_own_give(name, token):
    model = load_tiny(name, torch.float64)
    sites = find_sites(model, SITES[name])
    batches = step_batches(tiny_tokenizer(name), tiny_edits(count=12), 5).edit
    assert len({batch.input_ids_BT.shape for batch in batches}) > 1, "they must need padding to be joined"
    together = capture_together(model, sites, batches, token)
    for batch, found in zip(batches, together, strict=True):
        alone = capture_together(model, sites, [batch], token)[0]
        assert found.tokens == alone.tokens
        torch.testing.assert_close(found.loss, alone.loss)
        for one, other in zip(found.rows, alone.rows, strict=True):
            torch.testing.assert_close(one.keys_NK, other.keys_NK)
            torch.testing.assert_close(one.gradients_NV, other.gradients_NV, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", list(SITES))
def test_right_padding_needs_no_attention_mask(name):
    model, batch = load_tiny(name), tiny_batch(name)
    with torch.no_grad():
        masked = model(input_ids=batch.input_ids_BT, attention_mask=batch.attention_BT).logits
        logits_MW, _ = answer_logits(model, batch)
    torch.testing.assert_close(logits_MW, masked[batch.labels_BT != IGNORED])


def test_passes_hold_what_they_may():
    batches = step_batches(tiny_tokenizer("tiny-llama"), tiny_edits(count=24), 5).edit
    for tokens in (1, 100, 150, 10**6):
        groups = list(passes(batches, tokens))
        assert [batch for group in groups for batch in group] == batches
        for group in groups:
            assert len(group) == 1 or join(group).input_ids_BT.numel() <= tokens
    assert len(list(passes(batches, 1))) == len(batches) and len(list(passes(batches, 10**6))) == 1
