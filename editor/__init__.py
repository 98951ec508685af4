"""The mathematics of editing, and the editors; folders named in the environment may add to them (registry.py)."""

from editor.registry import extend_path

extend_path()
