"""The resolved configuration for people: a tree on a terminal, YAML anywhere else."""

from __future__ import annotations

import sys
from typing import Any, cast

from omegaconf import OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from config.schema import Config


def show_config(cfg: Config) -> None:
    """Print every key with its value."""
    content = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.structured(cfg), enum_to_str=True))
    if sys.stdout.isatty():
        Console().print(config_tree(content))
    else:
        print(OmegaConf.to_yaml(OmegaConf.create(content)), end="", flush=True)


def config_tree(content: dict[str, Any], name: str = "config") -> Tree:
    """Nested dictionaries as a tree: groups are branches, keys are leaves."""
    tree = Tree(f"[bold]{escape(name)}[/bold]")
    for key, value in content.items():
        if isinstance(value, dict):
            tree.add(config_tree(value, key))
        else:
            tree.add(f"{escape(key)}: [cyan]{escape(str(value))}[/cyan]")
    return tree
