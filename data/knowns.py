"""Known facts: prompts a model completes rightly before any edit, to see what editing makes it forget."""

from __future__ import annotations

from config.schema import DatasetConfig, FieldsConfig

from .fields import RowReader

KNOWNS = DatasetConfig(
    name="knowns",
    exact=True,  # an answer may begin with a space
    how_to_get="python -m data.prepare fetch knowns",
    fields=FieldsConfig(answer="prediction", rephrase=None, unrelated=None, unrelated_answer=None),
)
"""How a row of known_1000.json is read: a prompt, and the continuation published with it as its answer."""

read_row = RowReader(KNOWNS, keys="")
