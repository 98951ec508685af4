"""Run directories and their checkpoints at resume, and directories that a run must not take."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from files import sha256_of, sha256_of_json
from tests.hostile import spoil
from tests.hostile.case import Case, Wants, accepted, either, refused
from tests.hostile.clean import Clean, dies_at_the_fourth_checkpoint, longer, model_copy, same_run, small
from tests.hostile.models import KEY, reweighted
from tests.tiny import DATA

SAME = same_run("longer")
RESUME = ["main.py", "resume=run"]
ANEW = "written anew"
BEFORE_IT = "a damaged checkpoint is passed over: the one before it leads to the same numbers"
FROM_START = "no checkpoint is left: the run starts again, to the same numbers"
SET_ASIDE = "it is said, what is left is set aside, no number depends on it"
METRICS = either(SET_ASIDE, "metrics.jsonl", same=same_run("longer", lines=False))
SAID = either("what is left says the same", ("overrides.yaml", ".hydra"), same=SAME)
FILES: list[tuple[str, Wants]] = [
    ("checkpoints/00000004/state.json", either(BEFORE_IT, "00000004", same=SAME)),
    ("checkpoints/00000004/state.safetensors", either(BEFORE_IT, "00000004", same=SAME)),
    (".hydra/overrides.yaml", SAID),
    (".hydra/config.yaml", accepted("only the report reads it", SAME)),
    (".hydra/hydra.yaml", either("a run without it is resumed too", ".hydra", same=SAME)),
    ("metrics.jsonl", METRICS),
    ("status.json", either(ANEW, "status.json", same=SAME)),
    ("main.log", either("nothing reads it", "hydra.run.dir", same=SAME)),
    ("before/lines.jsonl", accepted("measured anew", SAME)),
    ("before/totals.json", accepted("measured anew", SAME)),
    ("before/reference.safetensors", accepted("measured anew", SAME)),
    ("before/manifest.json", accepted("measured anew", SAME)),
]


def stopped(folder: Path, clean: Clean) -> Path:
    """A copy of a run that died after its fourth checkpoint."""
    return clean.copy("stopped/run", folder / "run")


def inside(run: Path, name: str) -> Path:
    """A file of a run by its path; "before" is the folder of what was measured before editing."""
    head, _, rest = name.partition("/")
    return next(run.glob("before-*")) / rest if head == "before" else run / name


def resumed(name: str, do: Callable[[Path], object], want: Wants, *words: str) -> Case:
    """A stopped run that `do` spoils, resumed."""

    def make(folder: Path, clean: Clean) -> list[str]:
        do(stopped(folder, clean))
        return [*RESUME, *words]

    return Case("resume", name, make, want)


def newest(run: Path) -> Path:
    """The newest checkpoint."""
    return run / "checkpoints" / "00000004"


def signed(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Another state.json that names its own sha256 rightly, as one that was written so."""

    def do(run: Path) -> None:
        path = newest(run) / "state.json"
        content = json.loads(path.read_text())
        change(content)
        content.pop("sha256", None)
        path.write_text(json.dumps(content | {"sha256": sha256_of_json(content)}))

    return do


def tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    """Other tensors, with the right hash."""

    def do(run: Path) -> None:
        path = newest(run) / "state.safetensors"
        found = load_file(path)
        change(found)
        save_file(found, path)
        signed(spoil.put("tensors", sha256_of(path)))(run)

    return do


def every(*ways: spoil.Spoil) -> Callable[[Path], None]:
    """Both checkpoints spoiled."""

    def do(run: Path) -> None:
        for folder in (run / "checkpoints").iterdir():
            for way in ways:
                way(folder / "state.json")

    return do


MISSING = ("state", "config", "files", "model", "tensors", "number")
STATES: list[tuple[str, Callable[[Path], object], Wants]] = [
    ("both checkpoints cut", every(spoil.cut), accepted(FROM_START, SAME)),
    ("both checkpoints of garbage", every(spoil.garbage), accepted(FROM_START, SAME)),
    ("checkpoints gone", lambda r: shutil.rmtree(r / "checkpoints"), accepted(FROM_START, SAME)),
    ("checkpoints empty", lambda r: [shutil.rmtree(p) for p in (r / "checkpoints").iterdir()],
     accepted(FROM_START, SAME)),
    ("checkpoints a file", lambda r: (shutil.rmtree(r / "checkpoints"), (r / "checkpoints").write_text("")),
     refused("checkpoints")),
    ("checkpoints a link to itself", lambda r: (shutil.rmtree(r / "checkpoints"), spoil.loop_at(r / "checkpoints")),
     refused("checkpoints")),
    ("checkpoints a link to nowhere", lambda r: (shutil.rmtree(r / "checkpoints"),
     (r / "checkpoints").symlink_to("nowhere")), refused("checkpoints")),
    ("the newest checkpoint a file", lambda r: (shutil.rmtree(newest(r)), newest(r).write_text("")),
     accepted(BEFORE_IT, SAME)),
    ("the newest checkpoint empty", lambda r: (shutil.rmtree(newest(r)), newest(r).mkdir()), accepted(BEFORE_IT, SAME)),
    ("a checkpoint of another name", lambda r: newest(r).rename(r / "checkpoints" / "9x"),
     either("it is one all the same, or none", "9x", same=SAME)),
    ("a checkpoint with leftovers", lambda r: (r / "checkpoints" / ".00000005-x" / "new").mkdir(parents=True),
     accepted("what has no name is none", SAME)),
    ("a state of a list", lambda r: (newest(r) / "state.json").write_text("[]"), accepted(BEFORE_IT, SAME)),
    ("a state of null", lambda r: (newest(r) / "state.json").write_text("null"), accepted(BEFORE_IT, SAME)),
    ("a deep state", lambda r: (newest(r) / "state.json").write_text("[" * 100_000), accepted(BEFORE_IT, SAME)),
    ("a state with a NaN", lambda r: (newest(r) / "state.json").write_text('{"format": NaN}'),
     either(BEFORE_IT, "00000004", same=SAME)),
    ("a state of version 1", signed(spoil.put("format", 1)), refused("resume", "earlier version")),
    ("a state of version 99", signed(spoil.put("format", 99)), refused("resume", "version")),
    ("a state of version words", signed(spoil.put("format", "two")), refused("resume", "version")),
    ("a state without its hash", lambda r: spoil.edit_json(newest(r) / "state.json", spoil.drop("sha256")),
     accepted(BEFORE_IT, SAME)),
    ("a state of other edits", lambda r: spoil.edit_json(newest(r) / "state.json", spoil.put("state.loop.edits", 8)),
     accepted(BEFORE_IT, SAME)),
    *((f"a state without {key}", signed(spoil.drop(key)), either(BEFORE_IT, "00000004", same=SAME)) for key in MISSING),
    ("a state of other settings", signed(spoil.put("config.num_seq", 7)), refused("resume", "num_seq was 7, is 3")),
    ("a state of no settings", signed(spoil.put("config", {})), refused("resume")),
    ("a state of other files", signed(lambda s: s["files"].update(dict.fromkeys(s["files"], "0"))),
     refused("resume", "sha256 changed")),
    ("a state of another model", signed(spoil.put("model", "0")), refused("resume", "weights")),
    ("a state of no owner", signed(spoil.put("state", {})), either(BEFORE_IT, "00000004", same=SAME)),
    ("a state of words", signed(spoil.put("state.loop", "x")), either(BEFORE_IT, "00000004", same=SAME)),
    ("a number of words", signed(spoil.put("number", "x")), either(BEFORE_IT, "00000004", same=SAME)),
    ("tensors that lack one", tensors(lambda t: t.pop(sorted(t)[0])), either(BEFORE_IT, "00000004", same=SAME)),
    ("tensors with one more", tensors(lambda t: t.update(more=torch.ones(2))), either(BEFORE_IT, ("00000004", "more"),
     same=SAME)),
    ("tensors of other shapes", tensors(lambda t: t.update({sorted(t)[0]: torch.ones(3, 3)})),
     either(BEFORE_IT, "00000004", same=SAME)),
    ("metrics of another length", lambda r: (r / "metrics.jsonl").write_text('{"event": "x"}\n'), METRICS),
    ("metrics with one line changed", lambda r: (r / "metrics.jsonl").write_text(
        (r / "metrics.jsonl").read_text().replace("0.", "0.9", 1)), METRICS),
    ("no .hydra", lambda r: shutil.rmtree(r / ".hydra"), refused("resume=run", ".hydra")),
    ("overrides of a mapping", lambda r: (r / ".hydra/overrides.yaml").write_text("a: 1\n"), refused()),
    ("overrides of numbers", lambda r: (r / ".hydra/overrides.yaml").write_text("- 1\n- null\n"), refused()),
    ("overrides of a tag", lambda r: (r / ".hydra/overrides.yaml").write_text("!!python/object/apply:os.system [id]\n"),
     refused(("overrides.yaml", ".hydra"))),
    ("overrides of one word", lambda r: (r / ".hydra/overrides.yaml").write_text("words\n"), refused()),
    ("hydra.yaml of a list", lambda r: (r / ".hydra/hydra.yaml").write_text("- a\n"),
     either("a run without it is resumed too", ".hydra", same=SAME)),
    ("hydra.yaml of another kind", lambda r: (r / ".hydra/hydra.yaml").write_text("hydra: 3\n"),
     either("a run without it is resumed too", ".hydra", same=SAME)),
    ("a status of a list", lambda r: (r / "status.json").write_text("[]"), either(ANEW, "status.json", same=SAME)),
    ("a status of odd values", lambda r: (r / "status.json").write_text('{"state": 7, "pid": "x"}'),
     either(ANEW, "status.json", same=SAME)),
    ("a lock that is a folder", lambda r: ((r / ".lock").unlink(missing_ok=True), (r / ".lock").mkdir()),
     refused("run")),
    ("results already there, of garbage", lambda r: (r / "results.json").write_text("{"), accepted(ANEW, SAME)),
    ("results a folder", lambda r: (r / "results.json").mkdir(), refused("results.json")),
    ("edits a folder", lambda r: (r / "edits.jsonl").mkdir(), refused("edits.jsonl")),
]  # fmt: skip
WORDS: list[tuple[str, list[str], Wants]] = [
    ("other settings", ["num_seq=2"], refused("num_seq was 3, is 2")),
    ("another data set", [f"dataset.valid_path={DATA}/zsre_train.json"], refused("dataset.valid_path")),
    ("another editor", ["editor=ultraedit", "~editor.alpha"], refused("editor")),
    ("another model", ["model.name_or_path=nowhere/x"], refused("model.name_or_path")),
    ("another seed", ["seed=7"], refused("seed")),
    ("the same again", ["num_seq=3"], accepted("it changes nothing", SAME)),
    ("no checkpoints from now", ["checkpoint.every=0"], accepted("it moves no number", SAME)),
    ("another run directory", ["hydra.run.dir=other"], either("a run goes on where it is", "hydra.run.dir", same=SAME)),
]


def directories() -> Iterator[Case]:
    """Directories that hold something."""

    def holds(name: str, words: list[str], want: Wants, source: str = "small/run") -> Case:
        def make(folder: Path, clean: Clean) -> list[str]:
            clean.copy(source, folder / "run")
            return words

        return Case("resume", name, make, want)

    other = refused("hydra.run.dir", "holds another run", "resume=")
    yield holds("a directory of a finished run", small("num_seq=2"), other)
    yield holds("a directory of a stopped run", small(), other, "stopped/run")
    done = either("nothing is left to do", "resume", same=same_run("longer"))
    yield holds("a run that is done, resumed", RESUME, done, "longer/run")
    yield holds("a run without checkpoints, resumed", RESUME, accepted("it starts again", same_run("small")))
    yield Case("resume", "a file as its directory", lambda f, _: _touched(f, small()), refused("hydra.run.dir"))
    yield Case("resume", "a file, resumed", lambda f, _: _touched(f, RESUME), refused("resume=run"))
    yield Case("resume", "a directory that a living run holds", _held, refused("another run is at work"))
    yield Case("resume", "a stopped run that another resumes", _held_stopped, refused("another run is at work"))
    want = refused("resume", "weights")
    yield Case("resume", "other weights in the model's folder", lambda f, c: _other(f, c, weights=True), want)
    want = refused("resume", "sha256 changed")
    yield Case("resume", "another file of records", lambda f, c: _other(f, c, weights=False), want)


def _touched(folder: Path, words: list[str]) -> list[str]:
    (folder / "run").write_text("")
    return words


def _held(folder: Path, _: Clean) -> list[str]:
    (folder / "run").mkdir()
    code = "import sys, time, filelock; held = filelock.FileLock(sys.argv[1]); held.acquire(); "
    code += "print('x', flush=True); time.sleep(99)"
    holder = subprocess.Popen([sys.executable, "-c", code, folder / "run" / ".lock"], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    return small()


def _held_stopped(folder: Path, clean: Clean) -> list[str]:
    run = stopped(folder, clean)
    shutil.move(run, folder / "kept")
    _held(folder, clean)
    shutil.copytree(folder / "kept", run, symlinks=True, dirs_exist_ok=True)
    return RESUME


def _other(folder: Path, clean: Clean, *, weights: bool) -> list[str]:
    """A run on a model and records of its own, one of which then changes."""
    model, records = model_copy(folder), folder / "records.json"
    shutil.copy2(DATA / "zsre_eval.json", records)
    words = longer(f"{KEY}={model}", f"dataset.valid_path={records}", f"hydra.run.dir={folder / 'run'}")
    clean.execute(words, folder / "first", dies_at_the_fourth_checkpoint)
    if weights:
        reweighted(lambda w: w["model.layers.0.mlp.up_proj.weight"].add_(1))(model)
    else:
        records.write_text(records.read_text() + " ")
    return RESUME


def cases() -> Iterator[Case]:
    """All of them."""
    for name, said in FILES:
        for way in (*spoil.WAYS, spoil.linked):
            if name.endswith("overrides.yaml") and way is spoil.cut:
                continue  # another model, the embedded one, would be asked for
            if name.startswith("main") and way in (spoil.fifo, spoil.flipped, spoil.words, spoil.longer):
                continue
            legible = name.endswith("overrides.yaml") and way in (spoil.emptied, spoil.cut, spoil.flipped, spoil.words)
            want = either("what is left says the same", same=SAME) if legible else said
            yield resumed(f"{name} {spoil.named(way)}", lambda run, w=way, n=name: w(inside(run, n)), want)
    for name, do, want in STATES:
        yield resumed(name, do, want)
    for name, words, want in WORDS:
        yield resumed(f"with {name}", lambda run: None, want, *words)
    yield from directories()
