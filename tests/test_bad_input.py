"""Bad input is refused before any model loads, by a message that names the key, its value and what would be right."""

from __future__ import annotations

import copy
import json
import re
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path

import pytest
from hydra.errors import HydraException

import main
from config.check import ConfigError, check_override_names, check_values
from config.compose import compose_config
from config.schema import Config
from data.base import DataError
from glue_eval.__main__ import main as glue_main
from lifelong import run as lifelong_run
from lifelong import session
from tests.tiny import DATA, SITES, run_main, tiny_words

FIRST = SITES["tiny-llama"][0]
VALID = "dataset.valid_path"


@pytest.fixture(autouse=True)
def no_model(monkeypatch):
    """Loading a model before the input is refused is a failure."""

    def load_model(*_):
        pytest.fail("a model was loaded before the input was refused")

    monkeypatch.setattr(session, "load_model", load_model)


@cache
def composed(**base: str) -> Config:
    """The right configuration; to be copied before it is spoiled."""
    return compose_config(tiny_words(**base))


def refused(tmp_path: Path, *words: str, **base: str) -> str:
    """Run as main.py does, with words that spoil the run, up to the error; its message."""

    def run() -> None:
        check_override_names(argv)
        lifelong_run.run(compose_config(argv), tmp_path / "run")

    argv = tiny_words(*words, **base)
    return message_of(run, tmp_path)


def refused_value(tmp_path: Path, key: str, value: object, **base: str) -> str:
    """As refused, the value set after the configuration was composed: a tenth of the time."""
    cfg = copy.deepcopy(composed(**base))
    group, _, name = key.rpartition(".")
    node = getattr(cfg, group) if group else cfg
    assert hasattr(node, name)
    setattr(node, name, value)
    return message_of(lambda: lifelong_run.run(cfg, tmp_path / "run"), tmp_path)


def message_of(run: Callable[[], object], tmp_path: Path) -> str:
    """What a run says that must be refused."""
    with pytest.raises((ConfigError, DataError, HydraException)) as error:
        run()
    assert not (tmp_path / "run").exists(), "a refused run leaves nothing behind"
    causes, cause = [], error.value
    while cause is not None:  # Hydra prints the cause of its own error too
        causes.append(str(cause))
        cause = cause.__cause__
    return "\n".join(causes)


def test_these_words_are_right_without_the_bad_one(tmp_path):
    """The base that every test below spoils by one word gets as far as loading."""
    with pytest.raises(pytest.fail.Exception, match="a model was loaded"):
        lifelong_run.run(compose_config(tiny_words()), tmp_path / "run")


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("dataset=zsr", ["dataset/zsr", "facts", "fever", "wikibigedit", "zsre"]),
        ("model=mistral-8b", ["model/mistral-8b", "mistral-7b", "smollm2-135m"]),
        ("editor=stabledit", ["editor/stabledit", "stableedit", "ultraedit", "malmen"]),
        ("experiment=nope", ["experiment/nope", "quickstart", "zsre_mistral-7b"]),
    ],
)
def test_unknown_group_member(tmp_path, word, parts):
    message = refused(tmp_path, word)
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("word", "nearest"),
    [
        ("editor.alpah=1", "editor.alpha"),
        ("num_sec=3", "num_seq"),
        ("dataset.nedits=3", "dataset.n_edits"),
        ("model.edit_module=[a]", "model.edit_modules"),
        ("editor.RunningMeanStd_Mode=stable", "editor.RunningMeanStd_mode"),
        ("datasets=zsre", "dataset"),
        ("wandb.modes=offline", "wandb.mode"),
        ("qqqq=1", "num_seq"),
    ],
)
def test_unknown_key(tmp_path, word, nearest):
    message = refused(tmp_path, word)
    key, value = word.split("=")
    assert f"{key}={value}" in message
    assert re.search(rf"[\s,]{re.escape(nearest)}(,|$)", message)


@pytest.mark.parametrize(
    "word",
    [
        "hydra.run.dir=x",
        "+experiment=quickstart",
        "~wandb.name",
        "hydra/launcher=basic",
        "-m",
        "--cfg",
        "job",
        "editor.lr=1",
    ],
)
def test_words_that_are_none_of_ours_or_right_pass(word):
    check_override_names([word])


@pytest.mark.parametrize("word", ["+editor.foo=1", "+nope=1", "++dataset.nedits=1"])
def test_added_keys_are_refused_too(tmp_path, word):
    assert word.strip("+").split("=")[0] in refused(tmp_path, word)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("editor.preheat_mode", "begin", ["start", "q1", "middle", "q3", "end", "none"]),
        ("editor.RunningMeanStd_mode", "stabel", ["stable", "original"]),
        ("editor.token", "answer", ["ans", "all"]),
        ("editor.whitening_floor_mode", "rel", ["absolute", "relative"]),
        ("model.precision", "int8", ["float32", "bfloat16", "float16", "auto"]),
        ("wandb.mode", "on", ["offline", "online", "disabled"]),
        ("num_seq", "many", ["Integer"]),
        ("num_seq", "2.5", ["Integer"]),
        ("editor.lr", "fast", ["Float"]),
        ("dataset.eval_mhop", "perhaps", ["bool"]),
    ],
)
def test_value_outside_its_kind(tmp_path, key, value, allowed):
    message = refused(tmp_path, f"{key}={value}")
    for part in [key, value, *allowed]:
        assert part in message


COUNTS = ["editor.tokens_per_pass", "eval.tokens_per_batch", "downstream.batch_size"]
POSITIVE = ["num_seq", "dataset.n_edits", "dataset.batch_size", "editor.batch_size", "eval.tokens_per_batch"]
REAL = ["editor.lr", "editor.alpha", "editor.whitening_floor", "model.frozen_cache_gib"]


@pytest.mark.parametrize("key", POSITIVE)
@pytest.mark.parametrize("value", [0, -3])
def test_counts_must_be_positive(tmp_path, key, value):
    assert f"{key}={value}: must be a whole number above 0" in refused_value(tmp_path, key, value)


@pytest.mark.parametrize("key", COUNTS)
@pytest.mark.parametrize("value", [0, 2.5, "'7'", "true", "null", 2**31, "big"])
def test_counts_that_may_be_auto(key, value):
    for good in (7, "auto"):
        check_values(compose_config([f"{key}={good}"]))
    with pytest.raises(ConfigError, match=rf"{key}=.*: must be a whole number above 0, or auto"):
        check_values(compose_config([f"{key}={value}"]))


@pytest.mark.parametrize("key", REAL)
@pytest.mark.parametrize("value", [0.0, -1.5, float("nan"), float("inf")])
def test_reals_must_be_positive_and_finite(tmp_path, key, value):
    assert f"{key}={value}: must be a finite number above 0" in refused_value(tmp_path, key, value)


@pytest.mark.parametrize("word", ["num_seq=0", "dataset.n_edits=-3", "editor.lr=-1e-6", "editor.alpha=nan"])
def test_they_are_refused_on_the_command_line_too(tmp_path, word):
    key = word.split("=")[0]
    assert re.match(rf"{re.escape(key)}=\S+: must be a .* number above 0", refused(tmp_path, word))


def test_alpha_must_be_there(tmp_path):
    assert "field 'editor.alpha' is not Optional" in refused(tmp_path, "editor.alpha=null")


@pytest.mark.parametrize("key", ["num_seq_zsre", "num_seq_wikibigedit", "downstream_eval_steps", "seed"])
def test_counts_that_may_be_zero(tmp_path, key):
    assert f"{key}=-1: must be a whole number, 0 or more" in refused_value(tmp_path, key, -1)


@pytest.mark.parametrize(
    ("editor", "keys"),
    [
        ("malmen", ["rank", "n_blocks", "meta_lr", "max_grad_norm", "n_epochs"]),
        ("mend", ["rank"]),
        ("rledit", ["rank", "time_decay", "back_depth"]),
    ],
)
def test_learned_editors_keys_must_be_positive(tmp_path, editor, keys):
    for key in keys:
        message = refused_value(tmp_path, f"editor.{key}", 0, editor=editor)
        assert re.match(rf"editor\.{key}=0(\.0)?: must be a (whole|finite) number above 0", message)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["editor.preheat_mode=start"], ["editor.preheat_mode=start", "none", "editor=stableedit"]),
        (["editor.RunningMeanStd_mode=stable"], ["editor.RunningMeanStd_mode=stable", "original", "editor=stableedit"]),
    ],
)
def test_ultraedit_is_what_it_is(tmp_path, words, parts):
    message = refused(tmp_path, *words, editor="ultraedit")
    for part in parts:
        assert part in message


def test_relative_floor_is_a_share(tmp_path):
    message = refused(tmp_path, "editor.whitening_floor_mode=relative", "editor.whitening_floor=1.5")
    assert "editor.whitening_floor=1.5" in message and "below 1" in message


@pytest.mark.parametrize(
    ("model", "sites", "parts"),
    [
        ("tiny-llama", "model.layers.1.mlp.down_prj", ["no module model.layers.1.mlp.down_prj", FIRST]),
        (
            "tiny-llama",
            "model.layers.1.mlp",
            ["model.layers.1.mlp is a LlamaMLP", "neither nn.Linear nor Conv1D", FIRST],
        ),
        ("tiny-llama", "model.norm", ["model.norm is a LlamaRMSNorm", "neither nn.Linear nor Conv1D"]),
        ("tiny-gpt2", "lm_head", ["lm_head is tied to transformer.wte.weight", "another site"]),
        ("tiny-llama", f"{FIRST},{FIRST}", [FIRST, "named twice", "once"]),
        ("tiny-llama", "", ["model.edit_modules=[]", "at least one"]),
    ],
)
def test_sites(tmp_path, model, sites, parts):
    message = refused(tmp_path, f"model.edit_modules=[{sites}]", model=model)
    for part in ["model.edit_modules", *parts]:
        assert part in message


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("model.name_or_path=./no/such/folder", ["./no/such/folder", "no such folder", "ORGANISATION/NAME"]),
        (f"model.name_or_path={DATA}", [str(DATA), "no config.json"]),
        ("model.name_or_path=embedded:nope", ["embedded:nope", "smollm2-135m"]),
        (
            "model.name_or_path=someone/no-such-model",
            ["someone/no-such-model", "hf download", "model.name_or_path=FOLDER"],
        ),
        (
            "model.class_name=LlamaForCausalLM",
            ["model.class_name=LlamaForCausalLM", "no key model.class_name", "AutoModelForCausalLM finds", "leave"],
        ),
    ],
)
def test_models(tmp_path, word, parts):
    message = refused(tmp_path, word)
    for part in parts:
        assert part in message


@pytest.mark.parametrize("key", ["model_device", "editor_device"])
@pytest.mark.parametrize(
    ("value", "part"), [("cuda:77", "CUDA devices; use auto or cpu"), ("gpu", "must be auto, cpu or cuda:N")]
)
def test_devices(tmp_path, key, value, part):
    message = refused(tmp_path, f"{key}={value}")
    assert f"{key}={value}" in message and part in message


def test_cuda_where_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    message = refused(tmp_path, "model_device=cuda")
    assert "model_device=cuda: this machine has 0 CUDA devices; use auto or cpu" in message


def test_save_folder_is_needed_and_must_be_free(tmp_path):
    assert "model_cache_dir=DIR" in refused(tmp_path, "model_cache=true")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years of work")
    message = refused(tmp_path, "model_cache=true", f"model_cache_dir={tmp_path}/full")
    assert f"model_cache_dir={tmp_path}/full" in message and "new or empty folder" in message
    (tmp_path / "file").write_text("")
    assert f"{tmp_path}/file" in refused(tmp_path, "model_cache=true", f"model_cache_dir={tmp_path}/file")


def rows(count: int = 24) -> list[dict]:
    """zsre rows, right as they are."""
    return json.loads((DATA / "zsre_eval.json").read_text())[:count]


def written(path: Path, content: object) -> str:
    """The path of a record file with the given rows, or text."""
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_too_few_records(tmp_path):
    message = refused_value(tmp_path, VALID, written(tmp_path / "short.json", rows(20)))
    for part in ["short.json", "20 records", "num_seq x n_edits = 3 x 8 = 24", "num_seq to 2 or less"]:
        assert part in message


def test_too_few_records_for_one_step(tmp_path):
    message = refused_value(tmp_path, VALID, written(tmp_path / "short.json", rows(5)))
    for part in ["5 records", "24", "n_edits", "5 or less"]:
        assert part in message


@pytest.mark.parametrize(("dataset", "key"), [("zsre", "num_seq_zsre"), ("wikibigedit", "num_seq_wikibigedit")])
def test_too_few_warm_up_records(tmp_path, dataset, key):
    message = refused(tmp_path, f"{key}=11", dataset=dataset)
    for part in ["train.json", "80 records", f"{key} x n_edits = 11 x 8 = 88", f"{key} to 10 or less"]:
        assert part in message


def test_too_few_training_records(tmp_path):
    path = tmp_path / "train.json"
    path.write_text(json.dumps(rows(5)))
    message = refused(tmp_path, f"dataset.train_path={path}", editor="malmen")
    for part in ["dataset.train_path", str(path), "5 records", "n_edits=8"]:
        assert part in message


@pytest.mark.parametrize("key", ["valid_path", "train_path"])
def test_missing_file(tmp_path, key):
    message = refused(tmp_path, f"dataset.{key}={tmp_path}/nowhere.json")
    for part in [f"{tmp_path}/nowhere.json", "no such file", "python -m data.prepare fetch zsre"]:
        assert part in message


WHOLE = json.dumps(rows(24), indent=0)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("this is no JSON", ["no JSON array", "'this is no JSON'"]),
        ('{"a": 1}', ["no array", "[{...}, ...]"]),
        ("", ["empty (0 bytes)"]),
        (WHOLE[: len(WHOLE) // 2], ["row 1", "cut short"]),
        (WHOLE[: WHOLE.rindex("{")], ["row 23 ", "cut short"]),
        (WHOLE.replace('"ans"', "ans", 3).replace("ans:", '"ans":', 2), ["row 2 ", "not JSON"]),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", ["Git LFS"]),
    ],
)
def test_broken_file(tmp_path, content, parts):
    message = refused_value(tmp_path, VALID, written(tmp_path / "broken.json", content))
    for part in ["broken.json", *parts]:
        assert part in message


def test_a_capped_read_does_not_look_for_the_end(tmp_path):
    """An array that is cut after the records that are asked for is as good as whole: it is never read to its end."""
    word = f"{VALID}={written(tmp_path / 'cut.json', WHOLE[: WHOLE.rindex('}') + 1])}"
    with pytest.raises(pytest.fail.Exception, match="a model was loaded"):
        lifelong_run.run(compose_config(tiny_words(word)), tmp_path / "run")


@pytest.mark.parametrize("field", ["src", "ans", "rephrase", "loc", "loc_ans"])
@pytest.mark.parametrize(
    ("value", "part"), [("absent", "is missing"), (None, "null"), ("", "empty"), ("  ", "blank"), (7, "7")]
)
def test_bad_row(tmp_path, field, value, part):
    bad = rows()
    if value == "absent":
        del bad[13][field]
    else:
        bad[13][field] = value
    message = refused_value(tmp_path, VALID, written(tmp_path / "rows.json", bad))
    for expected in ["rows.json", "row 13 ", f"'{field}'", part]:
        assert expected in message


def test_bad_row_beyond_what_is_read_is_no_error(tmp_path):
    bad = rows(25)
    bad[24]["ans"] = None
    with pytest.raises(pytest.fail.Exception, match="a model was loaded"):
        lifelong_run.run(
            compose_config(tiny_words(f"{VALID}={written(tmp_path / 'rows.json', bad)}")), tmp_path / "run"
        )


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["editor.alpah=3"], ["editor.alpah=3", "editor.alpha"]),
        (["num_seq=0"], ["num_seq=0", "above 0"]),
        (["model.edit_modules=[model.layers.1.mlp.dwn_proj]"], ["model.layers.1.mlp.dwn_proj", FIRST]),
        (["dataset.valid_path=nowhere.json"], ["nowhere.json", "data.prepare fetch zsre"]),
    ],
)
def test_main_ends_in_one_line(tmp_path, words, parts):
    done = run_main(*tiny_words(*words), cwd=tmp_path)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and done.stderr.strip().splitlines()[-1] == errors[0]
    for part in parts:
        assert part in errors[0]


@pytest.mark.parametrize("word", ["dataset=nope", "editor.preheat_mode=begin"])
def test_main_shows_no_traceback_for_what_hydra_refuses(tmp_path, word):
    done = run_main(*tiny_words(word), cwd=tmp_path)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert word.split("=")[1] in done.stderr


# the real command line, in this process


def said(monkeypatch, capfd, folder: Path, *words: str, program: Callable[[], None] = main.main) -> str:
    """What `main.py WORDS` ends with, started in a folder: one line and no other."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.setattr(sys, "argv", ["main.py", *words])
    with pytest.raises(SystemExit) as stop:
        program()
    line, printed = str(stop.value.code), capfd.readouterr()
    assert line.startswith("error: ") and "\n" not in line and "Traceback" not in line
    assert printed.out + printed.err == ""
    return line


LONG = "x" * 300


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["model.name=${nosuch}"], ["model.name=${nosuch}", "'nosuch' not found"]),
        (["model.name=${oc.env:NOSUCH}"], ["model.name=${oc.env:NOSUCH}", "Environment variable 'NOSUCH' not found"]),
        (["num_seq=${model.name}"], ["num_seq=${model.name}", "could not be converted to Integer"]),
        (["dataset=null"], ["dataset=null", "name of a file of config/dataset"]),
        (["model=null"], ["model=null", "name of a file of config/model"]),
        (["editor=null"], ["editor=null", "name of a file of config/editor"]),
        (["editor=3"], ["editor=3", "name of a file of config/editor"]),
        (["experiment=[quickstart,null]"], ["experiment=[quickstart,null]", "name of a file of config/experiment"]),
        (["-m", "dataset=null,zsre"], ["dataset=null,zsre", "name of a file of config/dataset"]),
        (["experiment=nosuch"], ["experiment/nosuch", "quickstart", "zsre_mistral-7b"]),
        (["eval.probes=[colour]"], ["eval.probes=[colour]", "'colour', expected one of [distracting, verification"]),
        (["eval.probes=choice"], ["eval.probes=choice", "not a ListConfig, list or tuple"]),
        (["eval.best=ES"], ["eval.best=ES", "expected one of [gain, published]"]),
        (["wandb.mode=offline", "wandb.project=a/b"], ["wandb.project=a/b", "up to 128 characters"]),
        ([f"model.name={LONG}"], ["model.name=xxx", "300 bytes", "255 at most"]),
        ([f"editor.cache_dir=cache/{LONG}"], ["editor.cache_dir=cache/xxx", "300 bytes", "255 at most"]),
        ([f"resume={LONG}"], ["resume=xxx", "that say what it ran"]),
        (["num_seq=1" + 20 * "0"], ["num_seq=100000000000000000000", "above 0 and below 2,147,483,648"]),
        (["num_seq=3", "num_seq=many"], ["num_seq=many", "could not be converted to Integer"]),
        (["editor.lr=1", "editor.lr=[1]"], ["editor.lr=[1]", "could not be converted to Float"]),
        (["dataset.fields=3"], ["dataset.fields=3", "FieldsConfig"]),
        (["hydra.run.dir=file/run"], ["hydra.run.dir", "file/run", "name another folder"]),
        (["-m", "hydra.sweep.dir=file/run"], ["hydra.sweep.dir", "file/run", "name another folder"]),
        (["model.name=a\x1b[31m${"], ["model.name=a\\x1b[31m${"]),
    ],
)
def test_the_command_line_refuses_in_one_line(monkeypatch, capfd, tmp_path, words, parts):
    (tmp_path / "file").write_text("in the way")
    line = said(monkeypatch, capfd, tmp_path, *sorted(tiny_words(*words), key=lambda word: word != "-m"))
    assert [part for part in parts if part not in line] == [], line


def keys_of(kind: str, editor: str) -> list[str]:
    """The keys of a configuration whose values are of a type, by its name."""
    found = []
    for group, node in [("", composed(editor=editor)), *vars(composed(editor=editor)).items()]:
        if is_dataclass(node):
            prefix = f"{group}." if group else ""
            found += [prefix + one.name for one in fields(node) if kind in str(one.type).split(" | ")]
    return found


@pytest.mark.parametrize("editor", ["stableedit", "rledit"])
def test_no_whole_number_is_too_large(tmp_path, editor):
    keys = keys_of("int", editor)
    assert len(keys) > 20
    for key in keys:
        for value in (10**20, 10**400):
            message = refused_value(tmp_path, key, value, editor=editor)
            assert message.startswith(f"{key}={value}: must be a whole number") and "below 2,147,483,648" in message


def test_no_name_is_too_long(tmp_path):
    keys = [key for key in keys_of("str", "malmen") if key.endswith(("name", "dir", "text", "resume"))]
    assert len(keys) > 9
    for key in keys:
        assert refused_value(tmp_path, key, LONG).startswith(f"{key}=xxx")


@pytest.mark.parametrize(
    ("overrides", "hydra"),
    [(b"\xff\xfe", b""), (b"3", b""), (b"[1, 2]", b""), (b"a: [", b""), (b"", b""), (b"[[a]]", b"")]
    + [(b"- num_seq=3", hydra) for hydra in (b"\xff", b"[]", b"hydra: 3", b"hydra: {runtime: {config_sources: [a]}}")],
)
def test_a_garbled_record_of_what_ran_is_refused(monkeypatch, capfd, tmp_path, overrides, hydra):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_bytes(overrides)
    (tmp_path / ".hydra" / "hydra.yaml").write_bytes(hydra)
    line = said(monkeypatch, capfd, tmp_path, f"resume={tmp_path}")
    assert f"resume={tmp_path}: holds no .hydra/overrides.yaml and hydra.yaml that say what it ran" in line


def test_overrides_that_refer_to_others_are_taken_over(tmp_path):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text("- model.name=${dataset.name}\n")
    assert main.with_saved_overrides([f"resume={tmp_path}"])[0] == "model.name=${dataset.name}"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["downstream.number_of_tests=1" + 20 * "0"], ["downstream.number_of_tests=1000", "below 2,147,483,648"]),
        (["downstream.number_of_tests=null"], ["downstream.number_of_tests=null", "not Optional"]),
        ([f"downstream.data_dir={LONG}"], ["downstream.data_dir=xxx", "255 at most"]),
        (["downstream.data_dir=file"], ["downstream.data_dir=file", "sst2.jsonl", "cannot be opened"]),
        (
            ["downstream.tasks=[perplexity]", "downstream.perplexity_text=."],
            ["downstream.perplexity_text=.", "no such"],
        ),
        (["downstream.tasks=[sst,'b\x1b[0m']"], ["downstream.tasks", "no task b\\x1b[0m"]),
        (["downstream.perplexity_text=${nosuch}"], ["downstream.perplexity_text=${nosuch}:", "'nosuch' not found"]),
        (["hydra.run.dir=file/run"], ["hydra.run.dir", "file/run", "name another folder"]),
    ],
)
def test_the_downstream_command_refuses_in_one_line(monkeypatch, capfd, tmp_path, words, parts):
    (tmp_path / "file").write_text("in the way")
    all_words = ["model=smollm2-135m", "model_device=cpu", "downstream.tasks=[sst]", *words]
    line = said(monkeypatch, capfd, tmp_path, *all_words, program=glue_main)
    assert [part for part in parts if part not in line] == [], line
