"""editor/cache.py: memory and files give the same rows, and files never stay behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from editor import cache
from editor.cache import row_cache
from editor.capture import Rows

CPU = torch.device("cpu")


def micro_batch(seed: int) -> list[Rows]:
    """Rows of two sites of different shapes; one micro-batch has a single row."""
    generator = torch.Generator().manual_seed(seed)
    rows = 1 if seed == 1 else 4 + seed
    return [
        Rows(torch.randn(rows, k, generator=generator), torch.randn(rows, v, generator=generator))
        for k, v in ((6, 3), (3, 6))
    ]


def same(one: Rows, other: Rows) -> bool:
    return torch.equal(one.keys_NK, other.keys_NK) and torch.equal(one.gradients_NV, other.gradients_NV)


@pytest.fixture(autouse=True)
def no_memory(monkeypatch) -> None:
    """With a folder every row goes to a file."""
    monkeypatch.setattr(cache, "IN_MEMORY", 0)


@pytest.fixture(params=["memory", "files", "both"])
def cache_dir(request, tmp_path, monkeypatch) -> str | None:
    if request.param == "both":  # the first two micro-batches stay in memory
        monkeypatch.setattr(cache, "IN_MEMORY", sum(row.nbytes for seed in (0, 1) for row in micro_batch(seed)))
    return None if request.param == "memory" else str(tmp_path / "cache")


def test_rows_stay_in_memory_while_they_fit(tmp_path, monkeypatch):
    sizes = [sum(row.nbytes for row in micro_batch(seed)) for seed in range(4)]
    monkeypatch.setattr(cache, "IN_MEMORY", sizes[0] + sizes[1])
    with row_cache(str(tmp_path), CPU) as kept:
        for _ in range(2):
            for seed, files in enumerate((0, 0, 1, 2)):
                kept.put(micro_batch(seed))
                assert len(list(tmp_path.rglob("*.safetensors"))) == files
            assert all(same(kept.get(seed, 1), micro_batch(seed)[1]) for seed in range(4))
            kept.clear()
            assert not list(tmp_path.rglob("*.safetensors"))


def test_rows_come_back_as_they_went_in(cache_dir):
    with row_cache(cache_dir, CPU) as rows:
        for step in range(2):
            for batch in range(3):
                rows.put(micro_batch(10 * step + batch))
            for site in (1, 0):
                for batch in (2, 0, 1):
                    assert same(rows.get(batch, site), micro_batch(10 * step + batch)[site])
            rows.clear()


def test_views_are_kept_whole(cache_dir):
    """Slices and transposes of a larger tensor come back with their own values."""
    whole = torch.arange(24.0).reshape(4, 6)
    views = Rows(whole[:, ::2], whole[:, :3].T.contiguous().T)
    with row_cache(cache_dir, CPU) as rows:
        rows.put([views])
        assert same(rows.get(0, 0), views)


def test_a_cleared_step_is_gone(cache_dir):
    with row_cache(cache_dir, CPU) as rows:
        rows.put(micro_batch(0))
        rows.clear()
        with pytest.raises((LookupError, OSError)):
            rows.get(0, 0)


def left_in(folder: str) -> list[Path]:
    return list(Path(folder).iterdir())


def test_files_are_written_and_removed(tmp_path):
    folder = str(tmp_path / "not" / "there" / "yet")
    with row_cache(folder, CPU) as rows:
        rows.put(micro_batch(0))
        assert len(list(Path(folder).rglob("*.safetensors"))) == 1
    assert left_in(folder) == []


def test_files_are_removed_on_failure(tmp_path):
    with pytest.raises(RuntimeError, match="stop"), row_cache(str(tmp_path), CPU) as rows:
        rows.put(micro_batch(0))
        raise RuntimeError("stop")
    assert left_in(str(tmp_path)) == []


def test_two_runs_may_share_a_folder(tmp_path):
    stranger = tmp_path / "notes.txt"
    stranger.write_text("not ours")
    with row_cache(str(tmp_path), CPU) as one:
        one.put(micro_batch(0))
        with row_cache(str(tmp_path), CPU) as other:
            other.put(micro_batch(5))
            assert same(one.get(0, 0), micro_batch(0)[0]) and same(other.get(0, 0), micro_batch(5)[0])
            other.clear()
            assert same(one.get(0, 1), micro_batch(0)[1])
        assert same(one.get(0, 1), micro_batch(0)[1])
    assert left_in(str(tmp_path)) == [stranger]
