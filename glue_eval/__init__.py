"""Evaluation of a model's abilities beside the edits (docs/design.md, 6)."""
