"""Evaluation of a model's abilities beside the edits (DESIGN section 6)."""
