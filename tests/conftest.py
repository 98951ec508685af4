"""Shared by all tests: few threads, no network, and GPU tests that skip by name."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a CUDA device where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny models run faster, and the same everywhere, on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_terminal_summary(terminalreporter) -> None:
    """Name every reference case that ran, whatever the verbosity."""
    outcomes = {}
    for outcome in ("passed", "failed", "skipped", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            name, _, case = getattr(report, "nodeid", "").partition("::test_reference[")
            if case and name.endswith("test_reference.py") and getattr(report, "when", "call") == "call":
                outcomes[case.rstrip("]")] = outcome
    if outcomes:
        terminalreporter.section("reference cases of the published program")
        for case, outcome in sorted(outcomes.items()):
            terminalreporter.write_line(f"{case:<40} {outcome}")
