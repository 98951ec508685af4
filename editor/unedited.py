"""No editor at all: what a table of editors is compared with."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch.nn.functional import cross_entropy

from config.editors import AnyEditorConfig
from data.batches import IGNORED, StepBatches
from editor.base import AnyEditor, StepReport
from editor.capture import answer_logits
from editor.frozen import look_ahead
from editor.registry import register
from editor.ridge import SiteRecord
from editor.stopwatch import Stopwatch


@register("none", config=AnyEditorConfig)
class Unedited(AnyEditor):
    """Reads the edits and writes nothing."""

    writes: ClassVar[bool] = False

    @torch.no_grad()
    def step(self, batches: StepBatches, *, warm_up: bool) -> StepReport:
        """The edits' mean loss with the weights as they are; shifts of norm zero."""
        watch = Stopwatch(self.model.device)
        with watch("loss"):
            look_ahead(self.inputs, batches.edit)
            losses = [cross_entropy(*answer_logits(self.model, batch, self.inputs)) for batch in batches.edit]
            loss = torch.stack(losses).mean().item()
        tokens = sum(int((batch.labels_BT != IGNORED).sum()) for batch in batches.edit)
        sites = {site.name: SiteRecord(0.0, None, 0.0) for site in self.sites}
        return StepReport(loss, tokens, sites, {}, dict(watch.seconds))
