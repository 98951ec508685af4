"""What is said to people in one line: a configuration that cannot work, a run that could not go on."""

from __future__ import annotations


class ConfigError(ValueError):
    """A key or value that cannot work; the message says which and what would be right."""


class RunError(RuntimeError):
    """A run that could not go on, or that did not do what it is for; the message says where and why."""
