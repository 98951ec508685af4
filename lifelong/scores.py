"""Scores as Python gets them: numbers by name, and a table wherever they are shown."""

from __future__ import annotations

import pandas as pd

from report.metrics import METRICS, Tally, described


class Scores(dict[str, float]):
    """Means by metric, over `counts[metric]` facts each: scores.ES, scores["ES"], scores.to_pandas()."""

    def __init__(self, tally: Tally) -> None:
        means = tally.means()
        super().__init__({metric: means[metric] for metric in METRICS if metric in means})
        self.counts = dict(tally.counts)

    def __getattr__(self, name: str) -> float:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no {name} was measured; there are {', '.join(self) or 'none'}") from None

    def to_pandas(self) -> pd.DataFrame:
        """A row per metric: value, 95 % interval, number of facts, how it is measured."""
        rows = described({name: (value, self.counts[name]) for name, value in self.items()}, None, 0, 0)
        return pd.DataFrame(rows, columns=["metric", "value", "low", "high", "n", "protocol"]).set_index("metric")

    def __repr__(self) -> str:
        return self.to_pandas().to_string(float_format="{:.4f}".format)

    def _repr_html_(self) -> str:
        return self.to_pandas().to_html(float_format="{:.4f}".format)
