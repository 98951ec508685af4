"""Notebooks run without Jupyter: python -m tests.notebooks docs/first_edits.ipynb writes the outputs anew."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any


def cells(path: Path) -> list[dict[str, Any]]:
    """The code cells of a notebook."""
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def outputs(source: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    """What a cell prints, and the value of its last expression, as a notebook keeps them."""
    *body, last = ast.parse(source).body
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        shows = isinstance(last, ast.Expr)
        exec(compile(ast.Module(body if shows else [*body, last], []), "cell", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    found: list[dict[str, Any]] = []
    if printed.getvalue():
        found.append({"output_type": "stream", "name": "stdout", "text": printed.getvalue().splitlines(keepends=True)})
    if value is not None:
        data = {"text/plain": repr(value).splitlines(keepends=True)}
        if hasattr(value, "_repr_html_"):
            data["text/html"] = value._repr_html_().splitlines(keepends=True)
        found.append({"output_type": "execute_result", "data": data, "metadata": {}, "execution_count": None})
    return found


def run(path: Path) -> list[list[dict[str, Any]]]:
    """The outputs of every code cell, run in order in the working directory."""
    names: dict[str, Any] = {}
    return [outputs("".join(cell["source"]), names) for cell in cells(path)]


def main(path: Path) -> None:
    """Run a notebook in a scratch folder and keep what it gave."""
    content = json.loads(path.read_text(encoding="utf-8"))
    place = path.resolve()
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        found = iter(run(place))
    for number, cell in enumerate((cell for cell in content["cells"] if cell["cell_type"] == "code"), 1):
        cell["outputs"], cell["execution_count"] = next(found), number
        for output in cell["outputs"]:
            if output["output_type"] == "execute_result":
                output["execution_count"] = number
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main(Path(sys.argv[1]))
