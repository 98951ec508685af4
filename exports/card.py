"""The model card of an edited model: where it comes from, what was edited how, with which effect."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import yaml
from huggingface_hub import ModelCardData, metadata_load, try_to_load_from_cache

from files import regular
from model import CARD, EMBEDDED
from report.terminal import COLUMNS, metric_rows

NO_EFFECT = ("name", "cache_dir", "fields", "save_checkpoint")  # settings that change no weight, or are told above
LICENSE_KEYS = ("license", "license_name", "license_link")


def origin(name_or_path: str) -> str:
    """A base's name to open it by from anywhere: a hub id, embedded:NAME, or an absolute folder."""
    folder = Path(name_or_path).expanduser()
    return str(folder.absolute()) if folder.is_dir() else name_or_path


def front_matter(folder: str | Path) -> dict[str, Any]:
    """What the card in a folder says of its model; empty where there is no card or none that can be read."""
    try:
        return metadata_load(regular(Path(folder) / CARD)) or {}
    except (OSError, ValueError, yaml.YAMLError):
        return {}


def base_license(base: str) -> dict[str, str]:
    """The license keys of the base's own card, as far as this machine has it; empty where nothing says."""
    if base in EMBEDDED:
        return {"license": EMBEDDED[base].license}
    cached = None if Path(base).is_dir() else try_to_load_from_cache(base, CARD)
    found = front_matter(Path(cached).parent if isinstance(cached, str) else base)
    return {key: str(value) for key, value in found.items() if key in LICENSE_KEYS}


def model_card(results: dict[str, Any], identity: dict[str, Any], *, delta: bool = False) -> str:
    """The card as Markdown with YAML front matter, which names the base as base_model and edited_from.

    `results` as for results.json: metrics, counts, versions, config, and command where known.
    `identity` is base_identity of the model before its first edit.
    """
    config, command = results["config"], results.get("command")
    base = origin(config["model"]["name_or_path"])
    license_keys: dict[str, Any] = dict(base_license(base))
    head = ModelCardData(
        base_model=EMBEDDED[base].hub_id if base in EMBEDDED else base,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["model-editing", "knowledge-editing", config["editor"]["name"]],
        edited_from=base,
        prompt_format=said if (said := config["dataset"].get("prompt_format")) != "raw" else None,
        **license_keys,
    )
    text = Path(__file__).with_name("card.md.j2").read_text(encoding="utf-8")
    return jinja2.Template(text, undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True).render(
        results,
        head=head.to_yaml(),
        base=base,
        code=_code,
        identity=identity,
        columns=COLUMNS,
        scores=metric_rows(results["metrics"]),
        note=delta_note(base) if delta else "",
        settings=_settings(config),
        command=shlex.join(command) if isinstance(command, list) else command,
        date=f"{datetime.now(UTC):%Y-%m-%d}",
    )


def _code(value: Any) -> str:
    """A value as code in a line or a table's cell; its backticks, which would end the code, become quotes."""
    return "`" + " ".join(str(value).splitlines()).replace("|", "\\|").replace("`", "'") + "`"


def delta_note(base: str) -> str:
    """What a delta's card says beyond a whole model's; apply-delta leaves it out again."""
    return (
        "This folder holds the changed weights only. Put them into the base model, which is checked first:\n\n"
        f"```sh\npython -m exports apply-delta {shlex.quote(base)} THIS_FOLDER FOLDER\n```\n\n"
    )


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    values = {key: config[key] for key in ("num_seq", "num_seq_zsre", "num_seq_wikibigedit", "seed")}
    for group in ("dataset", "editor"):
        values |= {f"{group}.{key}": value for key, value in config[group].items() if key not in NO_EFFECT}
    return {key: value for key, value in values.items() if value is not None}
