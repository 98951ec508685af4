"""What a run begins with beside records: another run or a saved session to go on from, take back, score or tune."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from files import sha256_of_json
from tests.hostile import spoil
from tests.hostile.case import Case, Wants, accepted, either, refused
from tests.hostile.clean import Clean, small
from tests.tiny import DATA, MODELS, tiny_words

RECORDS = f"dataset.valid_path={DATA / 'zsre_eval.json'}"
TODAY = [RECORDS, "dataset.limit=8", "hydra.run.dir=run"]
GO_ON = ["main.py", "continue_from=other", *TODAY]
TAKE_BACK = ["main.py", "undo=other", "steps=1", "model_cache_dir=saved"]
UNEDITED = [word for word in tiny_words() if not word.startswith(("editor", "model=", "model.", "num_seq"))]
SCORE = ["main.py", *UNEDITED, "num_seq=1", "hydra.run.dir=run", "score=other"]
OLDER = "the checkpoint before it is taken"
UNREAD = "nothing reads it, or what is read is the same"
SESSION = ("session/session.json", "session/state.safetensors", "config.json", "model.safetensors", "tokenizer.json")
CHECKPOINT = ("state.json", "state.safetensors")
CLAIMS: list[tuple[str, Any]] = [
    ("format", 9), ("config", {}), ("trained", "x"), ("state", []), ("weights", 3), ("steps", [7]), ("files", []),
    ("earlier", [[]]), ("undo_gib", "x"), ("config.editor.name", "nope"), ("tokenizer", 1), ("files", {}),
]  # fmt: skip
HERE = ("other", "saved", "session")  # words that name what is wrong

WORDS: list[tuple[str, list[str], Wants]] = [
    ("go on from nothing", ["continue_from=nowhere", *TODAY], refused("continue_from=", "nowhere")),
    ("go on from an empty word", ["continue_from=", *TODAY], refused("continue_from=")),
    ("go on from a device", ["continue_from=/dev/null", *TODAY], refused("continue_from=/dev/null")),
    ("go on from a model", [f"continue_from={MODELS / 'tiny-llama'}", *TODAY], refused("continue_from=")),
    ("go on from 300 characters", [f"continue_from={'x' * 300}", *TODAY], refused("continue_from=")),
    ("go on and take back", ["continue_from=other", "undo=other", *TODAY], refused("one at a time")),
    ("go on with an experiment", ["continue_from=other", "experiment=quickstart", *TODAY], refused("experiment=")),
    ("go on without records", ["continue_from=other", "hydra.run.dir=run"], refused("dataset.valid_path")),
    ("go on with no file", ["continue_from=other", "dataset.valid_path=no.json", "hydra.run.dir=run"],
     refused("dataset.valid_path", "no.json")),
    ("go on at other sites", [*GO_ON[1:], "model.edit_modules=[model.layers.0.mlp.down_proj]"],
     refused("model.edit_modules", "statistics")),
    ("go on with another editor", [*GO_ON[1:], "editor=ultraedit"], refused("editor.name=", "ultraedit")),
    ("go on with another model", [*GO_ON[1:], f"model.name_or_path={MODELS / 'tiny-gpt2'}"], refused("model")),
    ("go on in another precision", [*GO_ON[1:], "model.precision=bfloat16"], refused("model.precision")),
    ("go on with an unknown key", [*GO_ON[1:], "editor.alpah=1"], refused("editor.alpah")),
    ("take back from nothing", ["undo=nowhere", "model_cache_dir=saved"], refused("nowhere")),
    ("take back without a folder", ["undo=other"], refused("model_cache_dir")),
    ("take back no step", ["undo=other", "steps=0", "model_cache_dir=saved"], refused("steps=0")),
    ("take back too many", ["undo=other", "steps=99", "model_cache_dir=saved"], refused("steps=99")),
    ("take back in a sweep", ["-m", "undo=other", "steps=1,2", "model_cache_dir=saved"], refused("undo=other", "-m")),
    ("take back into the run", ["undo=other", "model_cache_dir=other"], refused("model_cache_dir=other")),
    ("score nothing", [*SCORE[1:-1], "score="], refused("score=")),
    ("score no folder", [*SCORE[1:-1], "score=./nowhere"], refused("score=", "nowhere")),
    ("score a device", [*SCORE[1:-1], "score=/dev/null"], refused("score=", "null")),
    ("score against nothing", [*SCORE[1:], "score_base=./nowhere"], refused("score_base=", "nowhere")),
    ("score against another kind", [*SCORE[1:], f"score_base={MODELS / 'tiny-gpt2'}"], accepted("same tokens")),
    ("a base without a model", [*small()[1:], "score_base=auto"], refused("score_base=auto", "score=")),
    ("score and keep", [*SCORE[1:], "model_cache=true"], refused("model_cache=true")),
    ("score and tune", [*SCORE[1:], "tune=true"], refused("tune=")),
    ("score and go on", [*SCORE[1:], "continue_from=other"], refused(("score=", "continue_from="))),
    ("tune no trial", [*small()[1:], "tune=true", "tune_trials=0"], refused("tune_trials=0")),
    ("tune no edit", [*small()[1:], "tune=true", "tune_edits=0"], refused("tune_edits=0")),
    ("tune backwards", [*small()[1:], "tune=true", "tune_lr=[1,0.1]"], refused("tune_lr=")),
    ("tune one step size", [*small()[1:], "tune=true", "tune_lr=[1]"], refused("tune_lr=")),
    ("tune at no site", [*small()[1:], "tune=true", "tune_sites=['']"], refused("tune_sites")),
    ("tune at a site that is none", [*small()[1:], "tune=true", "tune_sites=['a.b']"], refused("tune_sites", "a.b")),
    ("tune more than there is", [*small()[1:], "tune=true", "tune_edits=99999"], refused("tune_edits=99999")),
    ("tune and keep", [*small()[1:], "tune=true", "model_cache=true"], refused("model_cache=true")),
]  # fmt: skip


def run_of_three(folder: Path, clean: Clean) -> Path:
    """A copy of a finished run of three steps that kept two checkpoints."""
    return clean.copy("longer/run", folder / "other")


def session(folder: Path, clean: Clean) -> Path:
    """A copy of a folder with a saved session."""
    return clean.copy("session/saved", folder / "other")


def spoiled(name: str, source: Callable[[Path, Clean], Path], do: Callable[[Path], object], argv: list[str],
            want: Wants) -> Case:  # fmt: skip
    """What lies in the folder `other`, spoiled, and a command that begins with it."""

    def make(folder: Path, clean: Clean) -> list[str]:
        do(source(folder, clean))
        return argv

    return Case("others", name, make, want)


def at(name: str, way: spoil.Spoil) -> Callable[[Path], None]:
    """A way to spoil one file of the folder."""
    return lambda other: way(other / name)


def newest(name: str, way: spoil.Spoil) -> Callable[[Path], None]:
    """A way to spoil one file of the newest checkpoint of a run."""
    return lambda other: way(max((other / "checkpoints").iterdir()) / name)


def claims(key: str, value: Any) -> Callable[[Path], None]:
    """A session that says something else of itself, under a hash that is right."""

    def do(other: Path) -> None:
        path = other / "session" / "session.json"
        spoil.edit_json(path, spoil.put(key, value))
        said = json.loads(path.read_text())
        said.pop("sha256")
        path.write_text(json.dumps(said | {"sha256": sha256_of_json(said)}))

    return do


def cases() -> Iterator[Case]:
    """All of them."""
    for name, words, want in WORDS:
        yield spoiled(name, run_of_three, lambda _: None, ["main.py", *words], want)
    for way in spoil.WAYS:
        for file in SESSION:
            own = file.startswith("session")
            want = refused(HERE) if own else either(UNREAD, (*HERE, file))
            for verb, argv in (("go on from", GO_ON), ("score", SCORE)):
                one = either(UNREAD, HERE) if own and verb == "score" else want
                yield spoiled(f"{verb} a session, {file} {spoil.named(way)}", session, at(file, way), argv, one)
        for file in CHECKPOINT:
            for verb, argv in (("go on from", GO_ON), ("take back", TAKE_BACK), ("score", SCORE)):
                name, want = f"{verb} a run, {file} {spoil.named(way)}", either(OLDER, "other")
                yield spoiled(name, run_of_three, newest(file, way), argv, want)
        want = either("what is not read is as it was", ("other", "edits.jsonl", "metrics.jsonl"))
        for file in ("edits.jsonl", "metrics.jsonl", "results.json", ".hydra/overrides.yaml"):
            for verb, argv in (("go on from", GO_ON), ("take back", TAKE_BACK)):
                yield spoiled(f"{verb} a run, {file} {spoil.named(way)}", run_of_three, at(file, way), argv, want)
    for key, value in CLAIMS:
        name = f"go on from a session that says {key}={value}"
        yield spoiled(name, session, claims(key, value), GO_ON, refused(HERE))
    gone = lambda other: shutil.rmtree(other / "checkpoints")  # noqa: E731  one line of a table
    yield spoiled("go on from a run without checkpoints", run_of_three, gone, GO_ON, refused("other", "checkpoints"))
    yield spoiled("go on from a run", run_of_three, lambda _: None, GO_ON, accepted("it is what it is for"))
    yield spoiled("go on from a session", session, lambda _: None, GO_ON, accepted("it is what it is for"))
    yield spoiled("take back", run_of_three, lambda _: None, TAKE_BACK, accepted("it is what it is for"))
    yield spoiled("score a session", session, lambda _: None, SCORE, accepted("it is what it is for"))
