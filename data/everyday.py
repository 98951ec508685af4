"""Everyday questions of our own making: what a model is asked that should not change by editing (data/everyday.txt)."""

from __future__ import annotations

from pathlib import Path

QUESTIONS = Path(__file__).with_name("everyday.txt")


def questions() -> list[str]:
    """All of them, a line each."""
    return QUESTIONS.read_text(encoding="utf-8").splitlines()
