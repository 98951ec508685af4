"""The model card of an edited model: where it comes from, what was edited how, with which effect."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCardData, metadata_load, try_to_load_from_cache

from model import EMBEDDED, EMBEDDED_PREFIX
from report.terminal import COLUMNS, metric_rows

CARD = "README.md"
NO_EFFECT = ("name", "cache_dir", "fields", "save_checkpoint")  # settings that change no weight, or are told above
LICENSE_KEYS = ("license", "license_name", "license_link")


def origin(name_or_path: str) -> str:
    """A base's name to open it by from anywhere: a hub id, embedded:NAME, or an absolute folder."""
    folder = Path(name_or_path).expanduser()
    return str(folder.absolute()) if folder.is_dir() else name_or_path


def front_matter(folder: str | Path) -> dict[str, Any]:
    """What the card in a folder says of its model; empty where there is no card or none that can be read."""
    try:
        return metadata_load(Path(folder) / CARD) or {}
    except (OSError, ValueError, yaml.YAMLError):
        return {}


def base_license(base: str) -> dict[str, str]:
    """The license keys of the base's own card, as far as this machine has it; empty where nothing says."""
    if base.startswith(EMBEDDED_PREFIX):
        return {"license": EMBEDDED[base.removeprefix(EMBEDDED_PREFIX)].license}
    folder = Path(base)
    if not folder.is_dir():
        cached = try_to_load_from_cache(base, CARD)
        if not isinstance(cached, str):
            return {}
        folder = Path(cached).parent
    return {key: str(value) for key, value in front_matter(folder).items() if key in LICENSE_KEYS}


def model_card(results: dict[str, Any], identity: dict[str, Any], *, delta: bool = False) -> str:
    """The card as Markdown with YAML front matter, which names the base as base_model and edited_from.

    `results` as for results.json: metrics, counts, versions, config, and command where known.
    `identity` is base_identity of the model before its first edit.
    """
    config = results["config"]
    editor, dataset, base = config["editor"]["name"], config["dataset"]["name"], origin(config["model"]["name_or_path"])
    embedded = EMBEDDED.get(base.removeprefix(EMBEDDED_PREFIX)) if base.startswith(EMBEDDED_PREFIX) else None
    license_keys: dict[str, Any] = dict(base_license(base))
    head = ModelCardData(
        base_model=embedded.hub_id if embedded else base,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["model-editing", "knowledge-editing", editor],
        edited_from=base,
        **license_keys,
    ).to_yaml()
    num_seq, warm_up = config["num_seq"], results["counts"].get("warm_up_steps")
    parts = [
        f"---\n{head}\n---\n",
        f"# {config['model']['name']} edited by {editor}\n",
        f"`{base}` with {results['counts']['edits']:,} edits of the data set {dataset} written into "
        f"{len(identity['tensors'])} of its weights, in {num_seq} sequential step{'s' * (num_seq > 1)}"
        + (f"; the training edits of {warm_up} warm-up steps stay in them too.\n" if warm_up else ".\n"),
        "**An edited model states its edited facts as true, whether they are or not**, and may have lost other "
        "knowledge and abilities on the way. It is made for research on model editing.\n",
        f"## Scores\n\n{_table(COLUMNS, metric_rows(results['metrics']))}",
        f"## Load\n\n{_load(base, delta=delta)}",
        f"## Base model\n\n{_base(base, identity)}",
        f"## How it was edited\n\n{_settings(config)}{_command(results)}",
        _table(("made", "with"), [("date", f"{datetime.now(UTC):%Y-%m-%d}"), *results["versions"].items()]),
    ]
    return "\n".join(parts)


def delta_note(base: str) -> str:
    """What a delta's card says beyond a whole model's; apply-delta leaves it out again."""
    return (
        "This folder holds the changed weights only. Put them into the base model, which is checked first:\n\n"
        f"```sh\npython -m exports apply-delta {shlex.quote(base)} THIS_FOLDER FOLDER\n```\n\n"
    )


def _table(head: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _load(base: str, *, delta: bool) -> str:
    return (delta_note(base) if delta else "") + (
        "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'model = AutoModelForCausalLM.from_pretrained("FOLDER")\n'
        'tokenizer = AutoTokenizer.from_pretrained("FOLDER")\n```\n'
    )


def _base(base: str, identity: dict[str, Any]) -> str:
    settings = identity["config_sha256"]
    told = f"`{base}`, {identity['architecture']} in {identity['dtype']}; sha256 of its settings `{settings}`.\n\n"
    rows = [(f"`{name}`", f"`{digest}`") for name, digest in identity["tensors"].items()]
    return told + _table(("edited weight", "sha256 before editing"), rows)


def _settings(config: dict[str, Any]) -> str:
    values: dict[str, Any] = {
        key: config[key] for key in ("num_seq", "num_seq_zsre", "num_seq_wikibigedit", "seed") if key in config
    }
    for group in ("dataset", "editor"):
        values |= {f"{group}.{key}": value for key, value in config[group].items() if key not in NO_EFFECT}
    rows = [(f"`{key}`", f"`{value}`") for key, value in values.items() if value is not None]
    return _table(("key", "value"), rows) + "\n"


def _command(results: dict[str, Any]) -> str:
    command = results.get("command")
    if not command:
        return ""
    return f"```sh\n{command if isinstance(command, str) else shlex.join(command)}\n```\n"
