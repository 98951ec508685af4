"""nets.py: running statistics against two-pass float64, whitening against its definition, the learned network."""

from __future__ import annotations

import pytest
import torch

from nets import EPSILON, EditNetwork, InverseRoot, Normalizer, RunningStatistics, inverse_root

D_K, D_V = 7, 5
SIZES = [1, 13, 2, 40, 7, 1, 100]


def whole(root: InverseRoot) -> torch.Tensor:
    """C^(-1/2), [V, V]."""
    return root.apply(torch.eye(len(root.vectors_VR), dtype=root.vectors_VR.dtype))


def random_blocks(sizes=SIZES, *, mean=0.0, std=1.0, seed=0):
    """Blocks of correlated rows [k, g], float32, every coordinate with a scale of its own."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(D_K + D_V, D_K + D_V, generator=generator)
    scale = torch.logspace(-1, 1, D_K + D_V) * std
    rows = torch.randn(sum(sizes), D_K + D_V, generator=generator) @ mix * scale + mean
    return rows.split(sizes)


def pooled(blocks, *, covariance=True) -> RunningStatistics:
    statistics = RunningStatistics(D_K, D_V, covariance=covariance, device=torch.device("cpu"))
    for block in blocks:
        statistics.add(block[:, :D_K], block[:, D_K:])
    return statistics


def assert_close(actual, expected, rel):
    expected = expected.double()
    assert ((actual.double() - expected).norm() / expected.norm()).item() < rel


@pytest.mark.parametrize(("mean", "std", "rel"), [(0.0, 1.0, 1e-6), (0.0, 1e-6, 1e-6), (1000.0, 0.05, 1e-3)])
def test_statistics_equal_two_passes(mean, std, rel):
    blocks = random_blocks(mean=mean, std=std)
    statistics, rows = pooled(blocks), torch.cat(blocks).double()
    centered = rows - rows.mean(0)
    assert statistics.n == len(rows)
    assert_close(statistics.mean_D, rows.mean(0), 1e-6 if mean else 1e-5)
    assert_close(statistics.m2_D, centered.square().sum(0), rel)
    assert_close(statistics.std_D, rows.std(0), rel)
    assert_close(statistics.scatter_VV, (centered.T @ centered)[D_K:, D_K:], rel)


def test_order_of_blocks_does_not_matter():
    blocks = random_blocks(mean=3.0)
    forth, back = pooled(blocks), pooled(blocks[::-1])
    for name in ("mean_D", "m2_D", "scatter_VV"):
        torch.testing.assert_close(getattr(forth, name), getattr(back, name), rtol=1e-9, atol=1e-9)


def test_empty_block_changes_nothing():
    statistics = pooled(random_blocks())
    before = {key: value.clone() for key, value in statistics.state_dict().items()}
    statistics.add(torch.empty(0, D_K), torch.empty(0, D_V))
    assert all(torch.equal(value, before[key]) for key, value in statistics.state_dict().items())


def test_single_row_has_no_deviation():
    (row,) = random_blocks([1])
    statistics = pooled([row])
    torch.testing.assert_close(statistics.mean_D.float(), row[0])
    assert not statistics.std_D.any()
    assert torch.isfinite(Normalizer(statistics).keys(row[:, :D_K])).all()


def test_covariance_only_where_asked_for():
    statistics = pooled(random_blocks(), covariance=False)
    assert statistics.scatter_VV is None and not statistics.whitens
    assert "cov_value" not in statistics.state_dict()


@pytest.mark.parametrize(("rows", "whitens"), [(D_V, False), (D_V + 1, False), (D_V + 2, True)])
def test_whitening_waits_for_rows(rows, whitens):
    assert pooled(random_blocks([rows])).whitens is whitens


def spectral(values, seed=1):
    """A covariance of known eigenvalues, float64, and its eigenvectors."""
    vectors = torch.linalg.qr(
        torch.randn(len(values), len(values), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    )[0]
    return vectors @ torch.diag(values) @ vectors.T, vectors


@pytest.mark.parametrize(
    ("floor", "relative", "lowest"), [(1e-9, False, 1e-9), (1e-2, False, 1e-2), (1e-2, True, 4e-2)]
)
def test_inverse_root_floors_eigenvalues(floor, relative, lowest):
    values = torch.tensor([1e-8, 1e-3, 2e-2, 1.0, 4.0], dtype=torch.float64)
    covariance, vectors = spectral(values)
    expected = vectors @ torch.diag(values.clamp(min=lowest).rsqrt()) @ vectors.T
    found = whole(inverse_root(covariance, floor, relative=relative))
    assert_close(found, expected, 1e-6)
    torch.testing.assert_close(found, found.T)


def test_inverse_root_undoes_the_covariance():
    covariance, _ = spectral(torch.tensor([0.1, 0.5, 1.0, 3.0], dtype=torch.float64))
    root = whole(inverse_root(covariance.float(), 1e-6))
    torch.testing.assert_close(root @ covariance.float() @ root, torch.eye(4), rtol=0, atol=1e-5)


def test_inverse_root_of_zero_is_finite():
    assert torch.isfinite(whole(inverse_root(torch.zeros(3, 3), 1e-2, relative=True))).all()
    torch.testing.assert_close(whole(inverse_root(torch.zeros(3, 3), 1e-6)), 1e3 * torch.eye(3))


def test_whitened_rows_have_identity_covariance():
    blocks = random_blocks([500, 300], mean=2.0)
    statistics = pooled(blocks)
    white = (
        Normalizer(statistics, statistics.inverse_root(1e-12, relative=False))
        .gradients(torch.cat(blocks)[:, D_K:])
        .double()
    )
    assert white.mean(0).abs().max() < 1e-4
    covariance = white.T @ white / (statistics.n - D_V - 1)
    torch.testing.assert_close(covariance, torch.eye(D_V, dtype=torch.float64), rtol=0, atol=5e-3)


def test_floor_caps_the_whitening():
    """A floor far above every eigenvalue leaves (g - mean) / sqrt(floor)."""
    blocks = random_blocks([200])
    statistics, rows = pooled(blocks), blocks[0][:, D_K:]
    found = Normalizer(statistics, statistics.inverse_root(1e8, relative=False)).gradients(rows)
    torch.testing.assert_close(found, (rows - rows.mean(0)) / 1e4, rtol=1e-3, atol=1e-6)


def test_diagonal_normalizer():
    blocks = random_blocks()
    rows, normalizer = torch.cat(blocks), Normalizer(pooled(blocks))
    expected = (rows - rows.mean(0)) / (rows.std(0) + EPSILON)
    torch.testing.assert_close(normalizer.keys(rows[:, :D_K]), expected[:, :D_K], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(normalizer.gradients(rows[:, D_K:]), expected[:, D_K:], rtol=1e-4, atol=1e-5)


def test_normalizer_is_frozen():
    """Rows added later do not change a normalizer that was made before."""
    blocks = random_blocks()
    statistics = pooled(blocks)
    normalizer, rows = Normalizer(statistics), blocks[-1][:, :D_K]
    before = normalizer.keys(rows)
    statistics.add(blocks[3][:, :D_K] + 100, blocks[3][:, D_K:])
    assert torch.equal(normalizer.keys(rows), before)


@pytest.mark.parametrize("covariance", [True, False])
def test_state_round_trip_goes_on_alike(covariance):
    blocks = random_blocks()
    kept, state = pooled(blocks[:4], covariance=covariance), pooled(blocks[:4], covariance=covariance).state_dict()
    loaded = pooled([], covariance=covariance)
    loaded.load_state_dict(state)
    for statistics in (kept, loaded):
        statistics.add(blocks[5][:, :D_K], blocks[5][:, D_K:])
    assert kept.n == loaded.n
    assert all(torch.equal(value, kept.state_dict()[key]) for key, value in loaded.state_dict().items())


def test_state_of_another_shape_is_refused():
    other = RunningStatistics(D_K + 1, D_V, covariance=True, device=torch.device("cpu"))
    with pytest.raises(ValueError, match=r"13 coordinates cannot serve 12"):
        pooled([]).load_state_dict(other.state_dict())


def make_network(n_sites=2) -> EditNetwork:
    generator = torch.Generator().manual_seed(3)
    return EditNetwork(D_K, D_V, rank=3, n_blocks=2, n_sites=n_sites, lr=0.5, generator=generator)


def test_network_starts_as_the_identity():
    network, rows = make_network(), torch.cat(random_blocks())
    keys, gradients = network(rows[:, :D_K], rows[:, D_K:], 1)
    assert torch.equal(keys, rows[:, :D_K]) and torch.equal(gradients, rows[:, D_K:])
    assert network.lr.weight.tolist() == [[0.5], [0.5]] and not network.lamda.weight.any()


def test_gradient_reaches_b_at_the_start():
    network, rows = make_network(), torch.cat(random_blocks())
    keys, gradients = network(rows[:, :D_K], rows[:, D_K:], 0)
    (keys.square().sum() + gradients.square().sum()).backward()
    for block in network.blocks:
        assert block.B.grad.abs().max() > 0 and block.bias.grad.abs().max() > 0
        assert not block.A.grad.any(), "A cannot move while B is 0"
        assert block.shift.weight.grad[0].any() and not block.shift.weight.grad[1].any(), "only the used site's row"


def test_network_follows_its_formula():
    network, rows = make_network(), torch.cat(random_blocks())
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        x = rows
        for block in network.blocks:
            x = x + block.scale.weight[1] * torch.relu(x @ block.A @ block.B + block.bias) + block.shift.weight[1]
        keys, gradients = network(rows[:, :D_K], rows[:, D_K:], 1)
    torch.testing.assert_close(torch.cat((keys, gradients), 1), x)


def test_network_start_depends_on_the_seed_alone():
    assert torch.equal(make_network().blocks[1].A, make_network().blocks[1].A)
    assert not torch.equal(make_network().blocks[0].A, make_network().blocks[1].A)
