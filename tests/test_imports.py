"""Imports point one way, no module imports itself through others, and light commands stay light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import PROJECT, run_main

# What each piece may import, besides itself. Downward only: every name stands above its readers.
MAY_IMPORT = {
    "files": set(),
    "linear": set(),
    "config": {"files"},
    "data": {"config", "files"},
    "nets": {"config", "files", "data"},
    "model": {"config", "files", "data", "linear"},
    "report": {"config", "files"},
    "exports": {"config", "files", "data", "model", "report"},
    "glue_eval": {"config", "files", "data", "model", "report"},
    "editor": {"config", "files", "data", "linear", "nets", "model"},
    "lifelong": {"config", "files", "data", "linear", "nets", "model", "report", "exports", "glue_eval", "editor"},
    "claims": {"config", "files", "data", "nets", "model", "report", "exports", "glue_eval", "editor", "lifelong"},
    "benchmarks": {
        "config",
        "files",
        "data",
        "linear",
        "nets",
        "model",
        "report",
        "exports",
        "glue_eval",
        "editor",
        "lifelong",
    },
    "main": {"config", "files", "data", "nets", "model", "report", "exports", "glue_eval", "editor", "lifelong"},
}


def modules() -> dict[str, Path]:
    """Every module of the pieces by dotted name."""
    found = {}
    for piece in MAY_IMPORT:
        paths = [PROJECT / f"{piece}.py"] if (PROJECT / f"{piece}.py").is_file() else (PROJECT / piece).rglob("*.py")
        for path in paths:
            parts = path.relative_to(PROJECT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported(name: str) -> set[str]:
    """Our own modules that a module imports, anywhere in its text, relative imports resolved."""
    path, found = MODULES[name], set()
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [node.module])])
            inside = {f"{base}.{alias.name}" for alias in node.names} & MODULES.keys()
            found |= inside | ({base} if len(inside) < len(node.names) else set())
    return {module for module in found if module.split(".")[0] in MAY_IMPORT} - {name}


def test_the_table_is_a_downward_order():
    order = list(MAY_IMPORT)
    for piece, below in MAY_IMPORT.items():
        assert all(order.index(other) < order.index(piece) for other in below), piece


def test_the_reader_of_imports_finds_some():
    assert "data.stream" in imported("data.source"), "relative"
    assert "editor.capture" in imported("editor.stableedit") | imported("editor.base"), "absolute"
    assert "lifelong.run" in imported("lifelong.job"), "inside a function"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_point_down(name):
    piece = name.split(".")[0]
    up = {module for module in imported(name) if module.split(".")[0] not in MAY_IMPORT[piece] | {piece}}
    assert not up, f"{name} must not import {', '.join(sorted(up))}"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_every_import_of_ours_exists(name):
    packages = {module.rpartition(".")[0] for module in MODULES} | MODULES.keys()
    assert imported(name) <= packages


def test_no_module_imports_itself_through_others():
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail[trail.index(name) :], name])
        if name in done:
            return
        for other in sorted(imported(name) & MODULES.keys()):
            visit(other, (*trail, name))
        done.add(name)

    for name in sorted(MODULES):
        visit(name, ())


@pytest.mark.parametrize("name", [name for name in sorted(MODULES) if name.startswith("editor.")])
def test_the_mathematics_knows_no_logging_and_no_hydra(name):
    text = MODULES[name].read_text()
    assert not re.search(r"^\s*(from|import) (logging|hydra|omegaconf|wandb)\b", text, flags=re.MULTILINE)


def test_nothing_but_tests_imports_tests():
    for name, path in MODULES.items():
        assert not re.search(r"^\s*(from|import) tests\b", path.read_text(), flags=re.MULTILINE), name


HEAVY = ("torch", "transformers", "wandb")


def test_data_tools_need_no_torch():
    code = f"import sys, config.schema, config.check, data.prepare; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("words", [("--cfg", "job"), ("--help",), ("editor.alpah=1",), ("num_seq=x",)])
def test_looking_at_the_configuration_needs_no_torch(words, tmp_path):
    done = run_main(*words, cwd=tmp_path, python=("-X", "importtime"))
    loaded = set(re.findall(r"\|\s+(\w+)$", done.stderr, flags=re.MULTILINE))
    assert "hydra" in loaded
    assert not loaded & set(HEAVY)
