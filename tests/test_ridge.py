"""editor/ridge.py and the learned editors' two-stage gradients, against end-to-end autograd in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from config.editors import LearnedConfig, RLEditConfig
from editor.capture import Rows
from editor.learned import AtSite
from editor.malmen import Malmen
from editor.mend import Mend
from editor.ridge import Shift, cosine, solve_gradient, solve_ridge, target_rows
from editor.rledit import RLEdit
from editor.sites import EditSite
from nets import Normalizer

D_K, D_V = 12, 6
SIZES = [1, 5, D_K - 1, D_K, D_K + 1, 40]
CPU = torch.device("cpu")


def rand(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def ridge(keys, targets, alpha):
    """S as it is written in the paper: a d_k x d_k solve in float64."""
    keys, targets = keys.double(), targets.double()
    return torch.linalg.solve(keys.T @ keys + alpha * torch.eye(keys.shape[1], dtype=torch.float64), keys.T @ targets)


@pytest.mark.parametrize("alpha", [1e-3, 1.0, 100.0])
@pytest.mark.parametrize("rows", SIZES)
def test_both_systems_give_the_same_shift(rows, alpha):
    keys, targets = rand(rows, D_K, seed=1), rand(rows, D_V, seed=2)
    shift = solve_ridge(keys, targets, alpha)
    assert (shift.left_NK is not None) == (rows < D_K), "the smaller system"
    torch.testing.assert_close(shift.matrix(), ridge(keys, targets, alpha), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("rows", [5, 40])
def test_float32_rows_stay_accurate_at_a_small_ridge(rows):
    """|K|^2 / alpha = 1e7 or so: a float32 factorization would lose most digits."""
    keys, targets = 30 * rand(rows, D_K, seed=1).float(), rand(rows, D_V, seed=2).float()
    shift = solve_ridge(keys, targets, 1e-3)
    expected = ridge(keys, targets, 1e-3)
    assert shift.matrix().dtype == torch.float32
    assert ((shift.matrix().double() - expected).norm() / expected.norm()).item() < 1e-5


def test_alpha_may_be_a_tensor():
    keys, targets = rand(5, D_K), rand(5, D_V)
    alpha = torch.tensor([2.5], dtype=torch.float64)
    torch.testing.assert_close(solve_ridge(keys, targets, alpha).matrix(), solve_ridge(keys, targets, 2.5).matrix())


@pytest.mark.parametrize("rows", [5, 40])
def test_large_alpha_leaves_the_sum_of_outer_products(rows):
    keys, targets = rand(rows, D_K), rand(rows, D_V)
    found = solve_ridge(keys, targets, 1e9).matrix() * 1e9
    torch.testing.assert_close(found, keys.T @ targets, rtol=1e-6, atol=1e-6)


def test_shift_maps_keys_to_targets_at_a_tiny_ridge():
    keys, targets = rand(5, D_K), rand(5, D_V)
    torch.testing.assert_close(keys @ solve_ridge(keys, targets, 1e-10).matrix(), targets, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("low_rank", [(True, True), (True, False), (False, True), (False, False)])
def test_norm_and_inner_agree_with_the_matrix(low_rank):
    shifts = []
    for seed, low in enumerate(low_rank):
        thin = Shift(rand(4 + seed, D_K, seed=seed), rand(4 + seed, D_V, seed=seed + 10))
        shifts.append(thin if low else Shift(None, thin.matrix()))
    one, other = shifts
    torch.testing.assert_close(one.inner(other), (one.matrix() * other.matrix()).sum())
    torch.testing.assert_close(one.norm, one.matrix().norm())
    assert one.matrix().shape == (D_K, D_V)


def test_cosine_of_shifts():
    shift = Shift(rand(4, D_K), rand(4, D_V, seed=1))
    for factor, expected in ((3, 1.0), (-1, -1.0), (0, 0.0)):
        other = Shift(None, factor * shift.matrix())
        assert cosine(shift.inner(other).item(), (shift.norm * other.norm).item()) == pytest.approx(expected)
    for cut in (slice(0, 3), slice(2, D_K + 5)):
        torch.testing.assert_close(shift.rows(cut), shift.matrix()[cut])
        torch.testing.assert_close(shift.columns(cut), shift.matrix()[:, cut].T)


def test_target_rows():
    keys, gradients = rand(9, D_K), rand(9, D_V)
    expected = torch.stack([-0.3 * (k @ k) * g for k, g in zip(keys, gradients, strict=True)])
    torch.testing.assert_close(target_rows(keys, gradients, 0.3), expected)


@pytest.mark.parametrize("rows", SIZES)
def test_solve_gradient_is_that_of_autograd(rows):
    keys, targets, outer = rand(rows, D_K, seed=1), rand(rows, D_V, seed=2), rand(D_K, D_V, seed=3)
    targets.requires_grad_()
    lamda = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    (ridge(keys, targets, lamda.exp()) * outer).sum().backward()
    alpha = lamda.detach().exp()
    shift = solve_ridge(keys, targets.detach(), alpha)
    gradient, product = solve_gradient(keys, outer, alpha, shift)
    torch.testing.assert_close(gradient, targets.grad, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(-alpha * product, lamda.grad, rtol=1e-8, atol=1e-9)


def learned_editor(kind, name):
    """A learned editor of two equal sites, its network in float64 with every parameter random."""
    config = RLEditConfig if name == "rledit" else LearnedConfig
    cfg = config(name=name, lr=0.1, batch_size=7, rank=4, n_blocks=2, meta_lr=1e-3, max_grad_norm=1.0)
    sites = [EditSite(f"site{i}", nn.Linear(D_K, D_V).requires_grad_(False)) for i in range(2)]
    editor = kind(cfg, nn.Module(), sites)
    network = editor.networks.by_shape[(D_K, D_V)].double()
    for seed, parameter in enumerate(network.parameters()):
        parameter.data = 0.3 * rand(*parameter.shape, seed=seed)
    return editor, network


def whole_shift(name, network, place, rows, normalizer):
    """The shift as one expression with a graph, as docs/design.md, 3 writes it."""
    pseudo_keys, pseudo_gradients = network(
        normalizer.keys(rows.keys_NK), normalizer.gradients(rows.gradients_NV), place
    )
    eta = network.lr.weight[place]
    if name == "mend":
        return -eta * pseudo_keys.T @ pseudo_gradients
    differences = -eta * (rows.keys_NK * pseudo_keys).sum(1, keepdim=True) * pseudo_gradients
    return ridge(rows.keys_NK, differences, network.lamda.weight[place].exp())


@pytest.mark.parametrize("rows", [5, D_K, 40])
@pytest.mark.parametrize(("kind", "name"), [(Malmen, "malmen"), (RLEdit, "rledit"), (Mend, "mend")])
def test_learned_gradient_is_that_of_autograd(kind, name, rows):
    editor, network = learned_editor(kind, name)
    data = Rows(rand(rows, D_K, seed=21), rand(rows, D_V, seed=22))
    editor.statistics[(D_K, D_V)].add(data.keys_NK, data.gradients_NV)
    normalizer, outer = Normalizer(editor.statistics[(D_K, D_V)]), rand(D_K, D_V, seed=23)
    expected_shift = whole_shift(name, network, 1, data, normalizer)
    (expected_shift * outer).sum().backward()
    expected = {key: p.grad.clone() for key, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()

    at = AtSite(network, 1, data, editor.statistics[(D_K, D_V)])
    proposals = editor.propose(at)
    with torch.no_grad():
        shift = editor.join(at, proposals)
    torch.testing.assert_close(shift.matrix(), expected_shift.detach(), rtol=1e-7, atol=1e-9)
    editor.backward(at, proposals, shift, outer)
    found = {key: p.grad for key, p in network.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    for key, gradient in expected.items():
        near = 1e-6 if key == "lamda.weight" else 1e-8  # lambda's gradient passes through float32
        torch.testing.assert_close(found[key], gradient, rtol=near, atol=near, msg=key)
    assert all(expected[key].any() for key in ("blocks.0.A", "blocks.0.B", "lr.weight"))
