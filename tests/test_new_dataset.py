"""One yaml in a folder outside the project is a data set: it is edited and scored, or refused with words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.tiny import MODELS, SITES, run_main

SONGS = """
name: songs
n_edits: 2
valid_path: songs.jsonl
unrelated_suffix: "?"
fields:
  prompt: song.question
  answer: song.singer
  rephrase: song.also
  unrelated: other.0.question
  unrelated_answer: other.0.answer
  persona: fan
"""


def record(number: int) -> dict[str, object]:
    """A nested record; one of four has no persona."""
    song = {"question": f"Who sang Lantern {number}?", "singer": f" Ada {number} ", "also": f"Lantern {number} is by"}
    other = [{"question": "what is two plus two", "answer": 4}]
    return {"song": song, "other": other, "fan": f"Mate, who sang Lantern {number}?" if number < 3 else None}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with dataset/songs.yaml and its records."""
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "songs.yaml").write_text(SONGS)
    (tmp_path / "songs.jsonl").write_text("".join(json.dumps(record(number)) + "\n" for number in range(4)))
    return tmp_path


def words(folder: Path, *more: str) -> list[str]:
    """A run of two steps of two songs on a tiny model, no warm-up."""
    sites = ",".join(SITES["tiny-llama"])
    return [
        *("--config-dir", str(folder), "dataset=songs", "model=smollm2-135m", "wandb.mode=disabled", "report=false"),
        *(f"model.name_or_path={MODELS / 'tiny-llama'}", f"model.edit_modules=[{sites}]", "model_device=cpu"),
        *("num_seq=2", "num_seq_zsre=0", "editor.lr=3e-3", "eval.examples=0", "eval.cache_dir=null", *more),
    ]


def test_a_yaml_alone_is_a_data_set(folder: Path) -> None:
    done = run_main(*words(folder, "hydra.run.dir=run"), cwd=folder)
    assert done.returncode == 0, done.stderr
    results = json.loads((folder / "run" / "results.json").read_text())
    assert results["counts"]["edits"] == 4 and results["config"]["dataset"]["name"] == "songs"
    assert all(0 <= results[name] <= 1 for name in ("ES", "GS", "LS", "person_score")) and "mhop_score" not in results
    edits = [json.loads(line) for line in (folder / "run" / "edits.jsonl").read_text().splitlines()]
    assert '"Who sang Lantern 0?"' in json.dumps(edits[0]) and '"what is two plus two?"' in json.dumps(edits[0])


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ("song.question", "song.asked", ["'song.asked' is missing", "song.question, song.singer", ".fields.prompt"]),
        ("persona: fan", "persona: fans", ["dataset.fields.persona=fans", "no record has this field"]),
        ("  prompt:", "  promt:", ["promt", "FieldsConfig"]),
        ("other.0.answer", "null", ["dataset.fields.unrelated_answer=None", "needs its answer"]),
    ],
)
def test_a_wrong_field_is_refused_before_a_model_loads(folder: Path, right: str, wrong: str, says: list[str]) -> None:
    yaml = folder / "dataset" / "songs.yaml"
    yaml.write_text(SONGS.replace(right, wrong))
    shutil.copytree(MODELS / "tiny-llama", folder / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    done = run_main(*words(folder, "hydra.run.dir=run", "model.name_or_path=model"), cwd=folder)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert all(part in done.stderr for part in says), done.stderr
    assert not (folder / "run" / "results.json").exists()
