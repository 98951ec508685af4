"""Every token's own gradient in one pass: as that of a sequence which ends at the token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from data.batches import join, micro_batches
from editor import margin, own_gradients
from editor.capture import capture_tokens, tokens_of
from editor.margin import one_by_one
from editor.own_gradients import NAME, works
from tests.test_margin import batches_for, editor_on, relative
from tests.tiny import SITES


def used(model: Any) -> str:
    """The attention that a model runs with."""
    return str(model.base_model.config._attn_implementation)


@pytest.mark.parametrize("name", SITES)
def test_rows_are_those_of_tokens_asked_alone(name: str) -> None:
    editor, batches = editor_on(name), batches_for(name).edit
    before = used(editor.model)
    together = capture_tokens(editor.model, editor.sites, join(batches), own_gradients.own_gradients(tokens_of))
    assert used(editor.model) == before != NAME
    alone = [
        capture_tokens(editor.model, editor.sites, one, tokens_of)
        for row in one_by_one(batches)
        for one in micro_batches([row], 1)
    ]
    pairs: list[tuple[list[Tensor], Tensor]] = [([one.losses_N for one in alone], together.losses_N)]
    pairs += [([one.margins_N for one in alone], together.margins_N)]
    for site in range(len(editor.sites)):
        pairs += [([one.rows[site].keys_NK for one in alone], together.rows[site].keys_NK)]
        pairs += [([one.rows[site].gradients_NV for one in alone], together.rows[site].gradients_NV)]
    for parts, whole in pairs:
        assert len(whole) == len(alone) and relative(torch.cat(parts), whole) < 1e-5
    mixed = capture_tokens(editor.model, editor.sites, join(batches), tokens_of)
    assert relative(mixed.rows[0].gradients_NV, together.rows[0].gradients_NV) > 1e-3, "of later tokens' losses too"


@pytest.mark.parametrize("name", SITES)
def test_a_model_whose_attention_cannot_be_replaced_is_asked_token_by_token(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    for can in (True, False):
        monkeypatch.setattr(margin, "works", lambda model, can=can: can and works(model))
        editor = editor_on(name)
        assert editor.together is can
        editor.step(batches_for(name), warm_up=False)
        found[can] = [site.weight.clone() for site in editor.sites]
    for one, other in zip(*found.values(), strict=True):
        assert relative(one, other) < 1e-4


def test_a_replacement_that_is_ignored_or_differs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = editor_on("tiny-llama").model
    assert works(model)

    def louder(*args: Any, **more: Any) -> tuple[Tensor, Tensor]:
        found, weights = own_gradients.attention(*args, **more)
        return 1.5 * found, weights

    own_gradients.AttentionInterface.register(NAME, louder)
    try:
        assert not works(model)
    finally:
        own_gradients.AttentionInterface.register(NAME, own_gradients.attention)
    monkeypatch.setattr(own_gradients, "NAME", used(model))
    assert not works(model), "gradients of earlier places"
