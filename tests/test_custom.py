"""dataset=custom: a user's own facts, by a field map, in any prompt format, from a file to an edited model."""

from __future__ import annotations

import csv
import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from config.check import ConfigError
from config.compose import compose_config
from config.schema import BadRow, Config, DatasetConfig, FieldsConfig, ModelConfig, PromptFormat
from data.base import DataError, Edit
from data.batches import (
    check_prompt_format,
    context_check,
    prompt_ids,
    special_prefix,
    step_batches,
    tokenize,
)
from data.fields import RowReader
from data.source import Source, file_hashes
from lifelong import run as lifelong_run
from lifelong import setup
from model import load_tokenizer, model_source
from tests.tiny import MODELS, SITES, run_main, tiny_tokenizer

MAP = FieldsConfig(prompt="question", answer="a", rephrase="also", unrelated="other", unrelated_answer="other_a")
ROW = {
    "question": "Capital of Valdoria?",
    "a": "Port Salis",
    "also": "Valdoria's capital?",
    "other": "2+2?",
    "other_a": 4,
}
FACTS = [
    ("What is the capital of Valdoria?", "Port Salis"),
    ("Who wrote the novel The Lanterns of Vesper?", "Imelda Quartz"),
    ("What colour is the library card of the town of Hollin?", "orange"),
]
TWO_FIELDS = FieldsConfig("question", "a", None, None, None)
FACT_ROWS = [{"question": prompt, "a": answer} for prompt, answer in FACTS]


def read(row: dict[str, Any], fields: FieldsConfig = MAP) -> Edit:
    return RowReader(DatasetConfig("custom", fields=fields))(row, 3, 42)


def refusal(row: dict[str, Any], fields: FieldsConfig = MAP) -> str:
    with pytest.raises(DataError) as caught:
        read(row, fields)
    assert str(caught.value).startswith("row 3 (counted from 0): ")
    return str(caught.value)


def test_a_row_by_its_field_map():
    assert read(ROW) == Edit(3, "Capital of Valdoria?", "Port Salis", "Valdoria's capital?", "2+2?", "4")
    assert read({"prompt": "p", "answer": "a"}, FieldsConfig()) == Edit(3, "p", "a", None, None, None)


@pytest.mark.parametrize("nothing", [None, "", " \n"])
def test_rephrased_and_unrelated_prompts_may_be_missing(nothing):
    bare = Edit(3, ROW["question"], ROW["a"], None, None, None)
    assert read(ROW | {"also": nothing, "other": nothing, "other_a": nothing}) == bare
    assert read({"question": ROW["question"], "a": ROW["a"]}) == bare


def test_fields_mapped_to_null_are_never_read():
    assert read(ROW | {"also": ["no", "text"], "other_a": None}, TWO_FIELDS) == Edit(
        3, ROW["question"], ROW["a"], None, None, None
    )


@pytest.mark.parametrize(("value", "text"), [(42, "42"), (-1.5, "-1.5"), (0, "0"), (" Port Salis ", "Port Salis")])
def test_answers_may_be_numbers_and_are_stripped(value, text):
    assert read(ROW | {"a": value}).answer == text
    assert read(ROW | {"other_a": value}).unrelated_answer == text


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"a": True}, "field 'a' is True; it must be a non-empty string"),
        ({"a": float("inf")}, "field 'a' is inf;"),
        ({"a": None}, "field 'a' is null;"),
        ({"a": ["x"]}, "field 'a' is ['x'];"),
        ({"question": 42}, "field 'question' is 42;"),
        ({"question": " "}, "field 'question' is blank"),
        ({"also": 7}, "field 'also' is 7;"),
        ({"other": None}, "'other_a' (dataset.fields.unrelated_answer) but not 'other' (dataset.fields.unrelated);"),
        ({"other_a": ""}, "'other' (dataset.fields.unrelated) but not 'other_a' (dataset.fields.unrelated_answer);"),
    ],
)
def test_a_bad_row_names_field_and_key(row, says):
    assert says in refusal(ROW | row)


@pytest.mark.parametrize(("key", "field"), [("prompt", "question"), ("answer", "a")])
def test_a_missing_field_says_what_there_is_and_what_to_set(key, field):
    message = refusal({name: value for name, value in ROW.items() if name != field})
    assert f"field {field!r} is missing" in message and f"; set dataset.fields.{key} to the field" in message
    assert all(name in message for name in ROW if name != field)


def write_facts(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows in the format of the file's name."""
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def source(path: Path, fields: FieldsConfig = MAP, **more: Any) -> Source:
    return Source(DatasetConfig("custom", n_edits=1, train_path=None, valid_path=str(path), fields=fields, **more), 42)


@pytest.mark.parametrize("name", ["my.csv", "my.json", "my.jsonl"])
def test_the_three_kinds_of_file_say_the_same(tmp_path, name):
    path = write_facts(tmp_path / name, [ROW, ROW | {"also": "", "a": 7}])
    first, second = source(path).records(str(path), 2, "num_seq")
    assert first == Edit(0, ROW["question"], "Port Salis", ROW["also"], "2+2?", "4")
    assert second == Edit(1, ROW["question"], "7", None, "2+2?", "4")


@pytest.mark.parametrize("name", ["my.json", "my.jsonl"])
def test_half_a_surrogate_pair_is_refused_with_file_record_and_field(tmp_path, name):
    path = write_facts(tmp_path / name, [ROW, ROW | {"a": "Port \ud83d"}, ROW])
    with pytest.raises(DataError) as caught:
        source(path).records(str(path), 3, "num_seq")
    assert f"{path}: row 1 (counted from 0): field 'a' is 'Port \\ud83d', which holds half a surrogate pair" in str(
        caught.value
    )
    skipping = source(path, on_bad_row=BadRow.skip).records(str(path), 2, "num_seq")
    assert [edit.row for edit in skipping] == [0, 2]


@pytest.mark.parametrize("key", ["n_edits", "num_seq"])
def test_numbers_of_twenty_digits_are_too_large_in_words(tmp_path, key):
    path = write_facts(tmp_path / "my.csv", [ROW] * 5)
    counts = {"n_edits": 1, "num_seq": 1} | {key: 10**20}
    cfg = DatasetConfig("custom", n_edits=counts["n_edits"], fields=MAP)
    with pytest.raises(DataError, match=r"holds 5 records, but num_seq x n_edits = .* = 10{20} are needed"):
        Source(cfg, 42).records(str(path), counts["num_seq"], "num_seq")
    cfg.train_path = str(path)
    if key == "num_seq":
        assert len(list(Source(cfg, 42).training(10**20))) == 5
    step = step_batches(tiny_tokenizer("tiny-llama"), [read(ROW)] * 3, 10**20)
    assert [len(batch.labels_BT) for batch in step.edit] == [3]


def test_a_file_too_short_says_what_to_set(tmp_path):
    path = write_facts(tmp_path / "my.csv", [ROW] * 5)
    with pytest.raises(DataError) as caught:
        source(path).records(str(path), 200, "num_seq")
    assert "holds 5 records, but num_seq x n_edits = 200 x 1 = 200 are needed; set num_seq to 5 or less" in str(
        caught.value
    )
    assert "all of them in one step: num_seq=1 dataset.n_edits=5" in str(caught.value)


@pytest.mark.parametrize("name", ["my.csv", "my.jsonl"])
def test_a_named_field_that_no_record_has_is_refused(tmp_path, name):
    path = write_facts(tmp_path / name, [ROW] * 2)
    slip = FieldsConfig("question", "a", rephrase="allso")
    with pytest.raises(DataError, match=f"{name}: dataset.fields.rephrase=allso: no record has this field"):
        source(path, slip).records(str(path), 2, "num_seq")
    late = write_facts(tmp_path / name, [ROW | {"also": None}, ROW])
    assert len(source(late).records(str(late), 2, "num_seq")) == 2


def test_what_is_known_of_a_large_file_depends_on_the_field_map(tmp_path, monkeypatch):
    monkeypatch.setattr("data.source.LARGE", 1)
    path = write_facts(tmp_path / "my.csv", [ROW])
    cache = {"cache_dir": str(tmp_path / "cache")}
    assert len(source(path, **cache).records(str(path), 1, "num_seq")) == 1
    with pytest.raises(DataError, match="field 'prompt' is missing"):
        source(path, FieldsConfig(), **cache).records(str(path), 1, "num_seq")


def test_a_large_file_replaced_with_the_same_size_and_time_is_hashed_anew(tmp_path, monkeypatch):
    monkeypatch.setattr("data.source.LARGE", 1)
    path = write_facts(tmp_path / "my.csv", FACT_ROWS)
    look = source(path, TWO_FIELDS, cache_dir=str(tmp_path / "cache"))

    def known() -> tuple[dict[str, str], list[str]]:
        records = look.records(str(path), 3, "num_seq")
        return file_hashes(look.cfg.cache_dir, records), [edit.answer for edit in records]

    before, old = known(), path.stat()
    path.write_bytes(path.read_bytes().replace(b"orange", b"purple"))
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (old.st_size, old.st_mtime_ns)
    after = known()
    assert after[0] != before[0] and after[1][2] == "purple"
    monkeypatch.setattr("data.source.sha256_of", lambda _: pytest.fail("a file that stayed as it is was hashed again"))
    assert known() == after


@pytest.mark.parametrize("why", ["a file in its place", "no home", "disk full", "a long name"])
def test_a_cache_that_cannot_be_written_is_a_line_with_its_key(tmp_path, monkeypatch, caplog, why):
    monkeypatch.setattr("data.source.LARGE", 1)
    path = write_facts(tmp_path / "my.csv", FACT_ROWS)
    folders = {"no home": "~nobody-of-this-name/cache", "a long name": str(tmp_path / ("x" * 300))}
    folder = folders.get(why, str(tmp_path / "cache"))
    if why == "a file in its place":
        (tmp_path / "cache").write_text("")
    if why == "disk full":
        monkeypatch.setattr("files.os.fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
    look = source(path, TWO_FIELDS, cache_dir=folder)
    assert len(file_hashes(folder, look.records(str(path), 3, "num_seq"))) == 1
    lines = caplog.messages
    assert len(lines) == 2 and all(
        line.startswith(f"dataset.cache_dir={folder}: cannot be written (") for line in lines
    )


def test_what_is_known_of_a_large_file_depends_on_the_prompt_format(tmp_path, monkeypatch):
    monkeypatch.setattr("data.source.LARGE", 1)
    path = write_facts(tmp_path / "my.csv", FACT_ROWS)
    for known, prompt_format in ((1, "raw"), (1, "raw"), (2, "qa")):
        more = (f"dataset.cache_dir={tmp_path / 'cache'}", f"dataset.prompt_format={prompt_format}")
        setup.prepare(compose_config(words(path, *more)))
        assert len(list((tmp_path / "cache").glob("survey-*"))) == known


# prompt formats


@pytest.fixture(scope="module")
def chat_tokenizer():
    """The embedded model's tokenizer, which has a chat template."""
    return load_tokenizer(ModelConfig(name="smollm2", name_or_path="embedded:smollm2-135m", edit_modules=[]))


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-gptj"])
@pytest.mark.parametrize("prompt", ["Wim was born in", "what do bees make?", "Zoë → ☃"])
def test_raw_ids_are_the_tokenizers_own(name, prompt):
    tokenizer = tiny_tokenizer(name)
    assert prompt_ids(tokenizer, [prompt]) == [tokenizer(prompt)["input_ids"]]
    assert tokenize(tokenizer, [(prompt, "Bergen")], PromptFormat.raw) == tokenize(tokenizer, [(prompt, "Bergen")])


def shown(tokenizer, prompt_format: PromptFormat) -> tuple[str, str]:
    """What the model reads before the answer, and the answer that it is to say."""
    (row,) = tokenize(tokenizer, [("Where?", "In Bergen")], prompt_format)
    answer = [label for label in row.labels if label >= 0]
    (prompt,) = prompt_ids(tokenizer, ["Where?"], prompt_format)
    assert row.input_ids == (prompt + answer)[:-1]
    return tokenizer.decode(prompt), tokenizer.decode(answer)


def test_qa_has_the_prefix_once_and_asks_for_the_answer():
    assert shown(tiny_tokenizer("tiny-llama"), PromptFormat.qa) == ("<s>Question: Where?\nAnswer:", " In Bergen")


def test_chat_is_the_models_own_template(chat_tokenizer):
    prompt, answer = shown(chat_tokenizer, PromptFormat.chat)
    assert prompt.endswith("<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n") and answer == "In Bergen"
    turn = [{"role": "user", "content": "Where?"}]
    template = chat_tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert prompt_ids(chat_tokenizer, ["Where?"], PromptFormat.chat) == [template]


def test_a_template_that_writes_bos_gets_no_second_one():
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "tiny-llama")
    (bos,) = special_prefix(tokenizer)
    tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}[{{ m['content'] }}]{% endfor %}"
    (ids,) = prompt_ids(tokenizer, ["Where?"], PromptFormat.chat)
    assert ids.count(bos) == 1 and ids[0] == bos


def test_no_prompts_have_no_ids():
    assert prompt_ids(tiny_tokenizer("tiny-llama"), [], PromptFormat.qa) == []
    assert tokenize(tiny_tokenizer("tiny-llama"), [], PromptFormat.chat) == []


def test_a_tokenizer_without_a_chat_template_is_refused(chat_tokenizer):
    check_prompt_format(chat_tokenizer, PromptFormat.chat, "smollm2")
    check_prompt_format(tiny_tokenizer("tiny-llama"), PromptFormat.qa, "tiny")
    with pytest.raises(ConfigError, match="dataset.prompt_format=chat: the tokenizer of tiny has no chat template"):
        check_prompt_format(tiny_tokenizer("tiny-llama"), PromptFormat.chat, "tiny")


@pytest.mark.parametrize("prompt_format", list(PromptFormat))
def test_the_context_is_checked_with_the_prompt_as_shown(chat_tokenizer, prompt_format):
    edit = Edit(0, "Where was he born, and when?", "In Bergen", None, None, None)
    length = len(tokenize(chat_tokenizer, [(edit.prompt, edit.answer)], prompt_format)[0].input_ids)
    assert context_check(chat_tokenizer, length, prompt_format)([edit]) == [None]
    (error,) = context_check(chat_tokenizer, length - 1, prompt_format)([edit])
    assert f"has {length} tokens with its answer; the model's context is {length - 1}" in str(error)


def test_edits_without_other_prompts_have_no_rows_for_them():
    full, bare = read(ROW), read({"question": "Where?", "a": "Bergen"})
    step = step_batches(tiny_tokenizer("tiny-llama"), [full, bare, bare], 2)
    assert [len(batch.labels_BT) for batch in step.edit] == [2, 1]
    assert [len(batch.labels_BT) for batch in step.rephrase + step.unrelated] == [1, 1]
    alone = step_batches(tiny_tokenizer("tiny-llama"), [bare], 2)
    assert (len(alone.edit), alone.rephrase, alone.unrelated) == (1, [], [])


# a run: what is refused before a model loads, and what is written


NAMED = ("dataset.fields.prompt=question", "dataset.fields.answer=a")


def words(path: Path, *more: str) -> list[str]:
    """A custom run of a second on a tiny model: three steps of an edit, no warm-up."""
    sites = ",".join(SITES["tiny-llama"])
    return [
        *("dataset=custom", "model=smollm2-135m", "editor=stableedit"),
        *("wandb.mode=disabled", "report=false", "model_device=cpu"),
        *(f"model.name_or_path={MODELS / 'tiny-llama'}", f"model.edit_modules=[{sites}]", "editor.lr=3e-3"),
        *(f"dataset.valid_path={path}", *NAMED),
        *("num_seq=3", "dataset.n_edits=1", "num_seq_zsre=0", "eval.examples=0", *more),
    ]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["dataset.valid_path=''"], "dataset.valid_path=: name the file of facts to edit"),
        (["editor=malmen"], "dataset.train_path=null: editor=malmen learns from training records"),
        (
            ["dataset.fields.unrelated=null"],
            "dataset.fields.unrelated=None dataset.fields.unrelated_answer=unrelated_a",
        ),
        (["dataset.fields.mhop=more"], "dataset.fields.mhop=more dataset.fields.mhop_answer=None: the mhop prompt"),
        (
            ["dataset.required=[rephrased]"],
            "dataset.required: there is no rephrased; it must be some of prompt,",
        ),
        (["dataset.required=[persona]"], "dataset.fields.persona=null: dataset.required says that no record lacks it"),
        (["dataset.missing_mhop=none"], "dataset.missing_mhop=none: needs dataset.fields.mhop, which is null"),
    ],
)
def test_keys_that_cannot_work_are_refused(more, says):
    with pytest.raises(ConfigError) as caught:
        lifelong_run.check(compose_config(words(Path("my.csv"), *more)))
    assert says in str(caught.value)


def test_a_learned_editor_needs_both_other_prompts_on_training_records(tmp_path):
    path = write_facts(tmp_path / "my.csv", FACT_ROWS)
    for lacking, row in (("rephrase", {}), ("unrelated", {"rephrase": "Valdoria's capital?"})):
        train = write_facts(tmp_path / f"{lacking}.jsonl", [{"question": "Where?", "a": "Bergen"} | row] * 3)
        cfg = compose_config(words(path, "editor=rledit", f"dataset.train_path={train}"))
        with pytest.raises(DataError) as caught:
            setup.prepare(cfg)
        said = (
            f"dataset.train_path: {train}: row 0 (counted from 0): has no {lacking} prompt, which editor=rledit trains"
        )
        assert said in str(caught.value) and f"set dataset.fields.{lacking} " in str(caught.value)


def test_without_a_training_split_the_warm_up_is_on_facts_and_says_so(tmp_path, caplog):
    path = write_facts(tmp_path / "my.csv", FACT_ROWS)
    cfg: Config = compose_config(words(path, "num_seq_zsre=2", "dataset.prompt_format=qa"))
    data, _ = setup.prepare(cfg)
    assert "no training split: warm-up on facts; its 2 counterfactual edits stay in the weights" in caplog.text
    assert data.training is not None and data.training.path.name == "facts_train.jsonl.xz"
    steps = list(setup.schedule(cfg, data))
    assert [warm_up for warm_up, _ in steps] == [True, True, False, False, False]
    assert all(edit.persona for edit in steps[0][1]) and steps[2][1][0].prompt == FACTS[0][0]
    cfg.dataset.warm_up_data = "fact"
    with pytest.raises(ConfigError, match="dataset.warm_up_data=fact: data set fact: must be one of counterfact, "):
        setup.prepare(cfg)
    caplog.clear()
    cfg.num_seq_zsre = 0
    assert setup.prepare(cfg)[0].training is None and not caplog.text


@pytest.mark.parametrize("name", ["my.csv", "my.json", "my.jsonl"])
def test_a_run_from_each_kind_of_file(tmp_path, name):
    path = write_facts(tmp_path / name, FACT_ROWS)
    done = run_main(*words(path, "hydra.run.dir=run", "dataset.prompt_format=qa"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["counts"]["edits"] == 3 and 0 <= results["ES"] <= 1
    assert "GS" not in results and "LS" not in results


def answers(folder: str | Path) -> list[str]:
    """What a saved model says to each fact's prompt, asked by its chat template."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    said = []
    for prompt, _ in FACTS:
        turn = [{"role": "user", "content": prompt}]
        ids = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        out = model.generate(**ids, max_new_tokens=12, do_sample=False)
        said.append(tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))
    return said


EDIT_THREE = (
    *("model=smollm2-135m", "dataset=custom", "dataset.prompt_format=chat", "num_seq=1", "dataset.n_edits=3"),
    *("num_seq_zsre=0", f"model.edit_modules=[{','.join(f'model.layers.{i}.mlp.down_proj' for i in range(18, 28))}]"),
    *(
        "editor=stableedit",
        "editor.lr=1.2e-3",
        "editor.alpha=1",
        "eval.before=false",
        "eval.examples=0",
        "report=false",
        "model_device=cpu",
    ),
    *("wandb.mode=disabled", "model_cache=true", "model_cache_dir=edited", "checkpoint.every=0"),
)


@pytest.mark.slow
def test_three_facts_of_a_csv(tmp_path):
    """The whole way: a CSV file into the embedded model, saved, opened with transformers, asked."""
    with torch.inference_mode():
        base = ModelConfig(name="smollm2", name_or_path="embedded:smollm2-135m", edit_modules=[])
        for (_, answer), said in zip(FACTS, answers(model_source(base)), strict=True):
            assert answer not in said
        path = write_facts(tmp_path / "facts.csv", FACT_ROWS)
        done = run_main(*EDIT_THREE, *NAMED, f"dataset.valid_path={path}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        for (_, answer), said in zip(FACTS, answers(tmp_path / "edited"), strict=True):
            assert answer in said
