"""Command-line keys and values: every key of config/schema.py with what it does not take, and odd words."""

from __future__ import annotations

import dataclasses
import random
import types
from collections.abc import Iterator
from enum import Enum
from typing import Any, Union, get_args, get_origin, get_type_hints

from config.choices import RANGE
from config.editors import (
    AlphaEditConfig,
    AnyEditorConfig,
    FinetuneConfig,
    LearnedConfig,
    MarginConfig,
    RidgeConfig,
    RLEditConfig,
)
from config.schema import Config
from tests.hostile.case import Case, Wants, either, refused
from tests.hostile.clean import LEARNED, SST, small

LONG = "x" * 300
HUGE = "1" + "0" * 20
WRONG = {  # by the kind of a key: values that it cannot have; the first of them are always tried
    int: ["many", HUGE, "nan", "1e400", "-1", "1.5", "1e20", "[1]", "{a: 1}", "''", "inf", "[]", LONG],
    float: ["fast", "nan", "1e400", "-1", "inf", "[]", "{a: 1}", "''", "-inf", LONG],
    bool: ["perhaps", LONG, "nan", "[]", "{a: 1}", "''"],
    Enum: ["nothing", LONG, "[]", "7", "nan", "''", "{a: 1}"],
    str: ["[a]", "{a: 1}", "[]"],
    list: ["word", "{a: 1}", "3", LONG],
    dict: ["3", "[]", "word", "true"],
}
ODD = {  # values of the right kind that few keys are made for
    int: [],
    float: ["1e20", "1e-300"],
    bool: ["2"],
    Enum: [],
    str: [LONG, "''", "nan", "a/b", "../..", "/proc/nowhere/x", "'~nobody/x'", "'a b'", "'\\x1b[31m'"],
    list: ["[]", f"[{LONG}]", "[a,a]", "['']"],
    dict: ["{}"],
}
ALWAYS = 3
KINDS: list[tuple[type[AnyEditorConfig], str]] = [
    (RidgeConfig, "stableedit"), (LearnedConfig, "malmen"), (RLEditConfig, "rledit"),
    (FinetuneConfig, "finetune"), (MarginConfig, "margin"), (AlphaEditConfig, "alphaedit"),
]  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """A key of the schema: its kind (a key of WRONG), whether null is a value, its range, the editor that has it."""

    name: str
    kind: Any
    optional: bool
    range: str
    editor: str = "stableedit"


def keys(node: type = Config, prefix: str = "", editor: str = "stableedit") -> Iterator[Key]:
    """Every key of the schema, those of every kind of editor once, at the first that has it."""
    types_of = get_type_hints(node)
    for field in dataclasses.fields(node):
        name, found = prefix + field.name, types_of[field.name]
        inside = [kind for kind in get_args(found) if kind is not types.NoneType]
        optional = get_origin(found) in (Union, types.UnionType)
        kind = inside[0] if optional else found
        if dataclasses.is_dataclass(kind):
            yield Key(name, dict, optional, "", editor)
            yield from _editors(name) if kind is AnyEditorConfig else keys(kind, f"{name}.", editor)  # type: ignore[arg-type]
            continue
        kind = int if kind is Any else kind  # a number or auto
        plain = list if get_origin(kind) is list else Enum if issubclass(kind, Enum) else kind
        yield Key(name, plain, optional, field.metadata.get(RANGE, ""), editor)


def _editors(name: str) -> Iterator[Key]:
    seen: set[str] = set()
    for kind, editor in KINDS:
        for key in keys(kind, f"{name}.", editor):
            if key.name not in seen:
                seen.add(key.name)
                yield key


def wants(key: Key, value: str) -> Wants:
    """What must come of a key with a value."""
    short = key.name.rpartition(".")[2]
    named = (key.name, f"'{short}'", f"full_key: {key.name}", key.name.rpartition(".")[0] or key.name)
    if value == "${nosuch}":
        return refused(named, "nosuch")
    if (value == "null" and key.optional) or value in ODD[key.kind]:
        return either("a value of the key's kind: used as it stands, or nothing uses it")
    if value == "-1" and not key.range.startswith(("above 0", "0 or more")) and key.kind in (int, float):
        return either("nothing says that it must be positive", named)
    return refused(named)


def _words(key: Key, value: str) -> list[str]:
    word = f"{key.name}={value}"
    if key.editor == "stableedit":
        return small(*(SST if key.name.startswith("downstream") else ()), word)
    return small(*(LEARNED if key.editor in ("malmen", "rledit") else ()), word, editor=key.editor)


def generated(whole: bool) -> Iterator[Case]:
    """Each key with what it does not take; `whole`: with every value, else with the first and a share of the rest."""
    for key in keys():
        values = ["${nosuch}", *([] if key.optional else ["null"]), *WRONG[key.kind]]
        rest = [*values[1 + ALWAYS :], *ODD[key.kind], *(["null"] if key.optional else [])]
        picked = values[: 1 + ALWAYS] + (rest if whole else random.Random(key.name).sample(rest, min(2, len(rest))))
        for value in picked:
            shown = f"{value[:8]}... ({len(value)} characters)" if len(value) > 40 else value
            words = _words(key, value)
            yield Case("keys", f"{key.name}={shown}", lambda *_, w=words: w, wants(key, value))


ANSWERED = "it is answered, not run"
WORDS: list[tuple[str, list[str], Wants]] = [  # words that are no key=value of ours, behind those of a right run
    ("a word alone", ["editor"], refused("editor")),
    ("an equals sign alone", ["="], refused("=")),
    ("nothing before the equals sign", ["=3"], refused("=3")),
    ("a key twice", ["num_seq=1", "num_seq=0"], refused("num_seq=0")),
    ("unknown key", ["editor.alpah=1"], refused("editor.alpah", "editor.alpha")),
    ("unknown key, added", ["+editor.foo=1"], refused("editor.foo")),
    ("unknown group", ["+nope/x=y"], refused("nope")),
    ("deleted key", ["~editor.lr"], refused(("editor.lr", "'lr'"))),
    ("deleted group", ["~editor"], refused("editor")),
    ("editor null", ["editor=null"], refused("editor")),
    ("unclosed bracket", ["model.edit_modules=[a"], refused("model.edit_modules")),
    ("unclosed quote", ["wandb.project='a"], refused("wandb.project")),
    ("unclosed brace", ["'model.edit_modules=[a.{1-]'"], refused("edit_modules")),
    ("brace counts down", ["model.edit_modules=[a.{3-1}]"], refused("model.edit_modules", "counts down")),
    ("brace of a million", ["model.edit_modules=[a.{0-999999}]"], refused("model.edit_modules")),
    ("an interpolation of itself", ["editor.lr=${editor.lr}"], refused("editor.lr")),
    ("an interpolation of another kind", ["num_seq=${model.name}"], refused("num_seq")),
    ("a resolver that is none", ["editor.lr=${nosuch:1}"], refused("nosuch")),
    ("environment that is not set", ["editor.lr=${oc.env:NOSUCH_VARIABLE}"], refused("NOSUCH_VARIABLE")),
    ("an unknown option", ["--nosuch"], refused("--nosuch")),
    ("an unknown experiment", ["+experiment=nope"], refused("nope")),
    ("unknown data set", ["dataset=zsr"], refused("zsr", "zsre")),
    ("unknown model", ["model=gpt5"], refused("gpt5", "gpt-j")),
    ("unknown editor", ["editor=nope"], refused("nope", "ultraedit")),
    ("a published key that is gone", ["model.class_name=X"], refused("model.class_name")),
    ("an editor that left", ["editor=stableedit_plus"], refused("editor=stableedit_plus", "use editor=margin")),
    ("a key that left", ["editor.key_ridge=0.9"], refused("editor.key_ridge=0.9", "use editor=margin")),
    ("resume of nothing", ["resume=nowhere"], refused("resume=nowhere")),
    ("resume of a name of 300 characters", [f"resume={LONG}"], refused("resume=")),
    ("resume empty", ["resume="], refused("resume=")),
    ("resume with an interpolation", ["resume=${nosuch}"], refused("resume")),
    ("run directory of 300 characters", [f"hydra.run.dir={LONG}"], refused("hydra.run.dir")),
    ("run directory in /proc", ["hydra.run.dir=/proc/nowhere/x"], refused("hydra.run.dir")),
    ("run directory below a device", ["hydra.run.dir=/dev/null/x"], refused("hydra.run.dir")),
    ("run directory null", ["hydra.run.dir=null"], refused("hydra.run.dir")),
    ("run directory with an unknown value", ["hydra.run.dir=${nosuch}"], refused("nosuch")),
    ("project with a slash", ["wandb.mode=offline", "wandb.project=a/b"], refused("wandb.project=a/b")),
    ("project of 300 characters", ["wandb.mode=offline", f"wandb.project={LONG}"], refused("wandb.project")),
    ("config folder that is not there", ["--config-dir", "nowhere"], refused("nowhere")),
    ("config folder without a value", ["--config-dir"], refused("--config-dir")),
    ("a job's config only", ["--cfg", "job"], either(ANSWERED)),
    ("help", ["--help"], either(ANSWERED)),
    ("Hydra's info of nothing", ["--info", "nosuch"], refused("nosuch")),
    ("another config", ["--config-name", "nosuch"], refused("nosuch")),
    ("a surrogate", ["wandb.name='\udcff'"], either("a name is written escaped", "wandb.name")),
    ("a surrogate in a path", ["dataset.valid_path='\udcff.json'"], refused("dataset.valid_path")),
    ("a sweep without a comma", ["-m", "num_seq="], refused("num_seq")),
    ("a sweep of a key that is none", ["-m", "editor.alpah=1,2"], refused("editor.alpah")),
    ("a sweep of an unknown launcher", ["-m", "hydra/launcher=nope", "seed=1,2"], refused("nope")),
    ("a sweep of an unknown sweeper", ["-m", "hydra/sweeper=nope", "seed=1,2"], refused("nope")),
    ("a sweep below a device", ["-m", "hydra.sweep.dir=/dev/null/x", "seed=1,2"], refused("hydra.sweep.dir")),
    ("a sweep of 300 characters", ["-m", f"hydra.sweep.dir={LONG}", "seed=1,2"], refused("hydra.sweep.dir")),
    ("a sweep in many folders at once", ["-m", "hydra.sweep.subdir=${nosuch}", "seed=1,2"], refused("nosuch")),
    ("a sweep that resumes", ["-m", "resume=nowhere", "seed=1,2"], refused("resume=nowhere")),
]  # fmt: skip

MODULES: list[tuple[str, list[str], Wants]] = [  # the other commands
    ("glue_eval: unknown key", ["-m", "glue_eval", "downstream.taks=[sst]"], refused("downstream.taks")),
    ("glue_eval: no task", ["-m", "glue_eval", "downstream.tasks=[]"], refused("downstream.tasks")),
    ("glue_eval: unknown task", ["-m", "glue_eval", "downstream.tasks=[nope]"], refused("downstream.tasks", "nope")),
    ("glue_eval: no tests", ["-m", "glue_eval", "downstream.number_of_tests=0"], refused("downstream.number_of_tests")),
    ("glue_eval: huge", ["-m", "glue_eval", f"downstream.batch_size={HUGE}"], refused("downstream.batch_size")),
    ("glue_eval: no model", ["-m", "glue_eval", "model.name_or_path=./no"], refused("model.name_or_path=./no")),
    ("glue_eval: a value unknown", ["-m", "glue_eval", "model.name_or_path=${nosuch}"], refused("nosuch")),
    ("report: nothing", ["-m", "report"], refused("RUN_DIR")),
    ("report: no such folder", ["-m", "report", "nowhere"], refused("nowhere")),
    ("report: 300 characters", ["-m", "report", LONG], refused(LONG[:40])),
    ("report: no run", ["-m", "report", "."], refused("results.json")),
    ("prepare: no command", ["-m", "data.prepare"], refused("usage")),
    ("prepare: unknown set", ["-m", "data.prepare", "check", "nope"], refused("nope")),
    ("prepare: path as set", ["-m", "data.prepare", "check", "../x"], refused("../x")),
    ("prepare: no file", ["-m", "data.prepare", "check", "zsre", "--path", "no.json"], refused("no.json")),
    ("prepare: field of nothing", ["-m", "data.prepare", "check", "zsre", "--fields", "x"], refused("x")),
    ("prepare: field not there", ["-m", "data.prepare", "check", "facts", "--fields", "mhop=a"], refused("mhop")),
    ("prepare: limit 0", ["-m", "data.prepare", "check", "zsre", "--limit", "0"], refused("--limit")),
    ("prepare: limit huge", ["-m", "data.prepare", "check", "zsre", "--limit", HUGE, "--path", "no.json"], refused("")),
    ("prepare: fetch nothing", ["-m", "data.prepare", "fetch"], refused("fetch")),
    ("prepare: fetch unknown", ["-m", "data.prepare", "fetch", "nope"], refused("nope")),
    ("prepare: no URL", ["-m", "data.prepare", "fetch", "knowns", "--base-url", "nope", "--root", "."],
     refused("nope")),
    ("prepare: URL of a folder", ["-m", "data.prepare", "fetch", "knowns", "--base-url", "file:///no", "--root", "."],
     refused("file:///no")),
    ("prepare: root a device", ["-m", "data.prepare", "fetch", "knowns", "--base-url", "http://127.0.0.1:9", "--root",
     "/dev/null"], refused("/dev/null")),
]  # fmt: skip


def cases(whole: bool = False) -> Iterator[Case]:
    """All of them."""
    yield from generated(whole)
    for name, words, want in WORDS:
        yield Case("words", name, lambda *_, w=words: [*small(), *w], want)
    for name, words, want in MODULES:
        yield Case("commands", name, lambda *_, w=words: w, want)
