"""A run and what surrounds it. From Python: `from lifelong import Fact, Session` (docs/python.md)."""

from importlib import import_module
from typing import Any

PUBLIC = {"Fact": "lifelong.facts", "Session": "lifelong.session"}


def __getattr__(name: str) -> Any:  # the command line must not wait for what only Python needs
    if name not in PUBLIC:
        raise AttributeError(f"module 'lifelong' has no attribute {name!r}")
    return getattr(import_module(PUBLIC[name]), name)
