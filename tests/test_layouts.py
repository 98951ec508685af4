"""Files in the layouts of other programs load by naming the data set and the file alone; lists are averaged within."""

from __future__ import annotations

import gzip
import json
import lzma
import os
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from config.compose import compose_config, dataset_config
from config.schema import DatasetConfig, FieldsConfig, Locality
from data import prepare
from data.base import DataError, Edit
from data.batches import step_batches, tokenize
from data.fields import RowReader, held
from data.source import RecordFile, Source
from lifelong import run as lifelong_run
from lifelong.answers import answers
from tests.layouts import COUNTERFACT, KNOWEDIT, LAYOUTS, LOCFT, QAEDIT
from tests.tiny import PROJECT, load_tiny, tiny_tokenizer, tiny_words

REAL = Path(os.environ.get("REAL_DIR", PROJECT.parent / "shared" / "real"))


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    openers = {".xz": lzma.open, ".gz": gzip.open}
    with openers.get(path.suffix, open)(path, "wt", encoding="utf-8") as file:
        json.dump(rows, file)
    return path


@pytest.mark.parametrize(("name", "row", "expected"), LAYOUTS, ids=[name for name, *_ in LAYOUTS])
def test_a_record_in_each_layout(name: str, row: dict[str, Any], expected: list[Edit], tmp_path: Path) -> None:
    before = json.dumps(row)
    path = write(tmp_path / "a.json", [row] * 5)
    edits = list(RecordFile(path, RowReader(dataset_config(name)), 42))
    assert edits[-len(expected) :] == expected and len(edits) == 5 * len(expected)
    assert json.dumps(row) == before


def test_which_kind_the_unrelated_prompts_are() -> None:
    near = {"counterfact", "easyedit", "knowedit", "wikibigedit"}
    for path in (PROJECT / "config" / "dataset").glob("*.yaml"):
        wanted = Locality.neighbour if path.stem in near else Locality.random
        assert dataset_config(path.stem).locality is wanted, path.stem


@pytest.mark.parametrize("name", ["counterfact", "qaedit", "easyedit", "knowedit", "mquake"])
def test_all_records_are_edited_and_nothing_warms_up(name: str) -> None:
    cfg = compose_config([f"dataset={name}"])
    assert (cfg.num_seq, cfg.num_seq_zsre) == (None, 0)


def test_field_maps_stand_on_the_command_line_as_they_are() -> None:
    words = ["dataset=custom", "dataset.fields.unrelated=locality[].loc|loc", "dataset.fields.subject=who|"]
    fields = compose_config(words).dataset.fields
    assert (fields.unrelated, fields.subject) == ("locality[].loc|loc", "who|")


@pytest.mark.parametrize("name", ["counterfact", "qaedit", "wikibigedit", "zsre"])
def test_real_files_load_by_name(name: str) -> None:
    path = REAL / f"{name}.json.xz"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    cfg = compose_config([f"dataset={name}", f"dataset.valid_path={path}", "num_seq=null"])
    records = Source(cfg.dataset, cfg.seed).edits(cfg.num_seq)
    count, has = 600 if name == "qaedit" else 2000, Counter[str]()
    for edit in records:
        has.update(held(edit))
    assert len(records) == count
    keys = {"prompt", "answer", "rephrase", "unrelated", "unrelated_answer", "subject"}
    assert has == dict.fromkeys(keys | ({"old_answer"} if name in ("counterfact", "zsre") else set()), count)
    lists = Counter(len(edit.more) for edit in records)
    assert lists == ({4: 600} if name == "qaedit" else {0: 2000})


@pytest.mark.parametrize("ending", [".xz", ".gz"])
def test_a_compressed_array_is_read_as_it_is_unpacked(tmp_path: Path, ending: str, monkeypatch) -> None:
    """No more than is asked for: the rest of the file may be damaged."""
    path = write(tmp_path / f"a.json{ending}", [LOCFT | {"note": str(number) * 2000} for number in range(2000)])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    source = Source(dataset_config("counterfact"), 42)
    assert len(source.records(str(path), 2, "num_seq")) == 200
    with pytest.raises(DataError, match=r"a\.json\.(xz|gz): row \d+ .*cut short"):
        source.records(str(path), 20, "num_seq")


def read(row: dict[str, Any], **keys: Any) -> Edit:
    return RowReader(DatasetConfig("custom", **keys))(row, 3, 42)


PAIRS = FieldsConfig(unrelated="near[].q", unrelated_answer="near[].a", neighbour="by", neighbour_answer="by_a")
ROW: dict[str, Any] = {"prompt": "Where?", "answer": "Bergen"}


def test_pairs_in_lists() -> None:
    row = ROW | {"near": [{"q": "one", "a": ["1", "I"]}, {}, {"q": "two", "a": 2}], "by": ["x", "y"], "by_a": "z"}
    edit = read(row, fields=PAIRS, unrelated_suffix="?")
    assert edit == Edit(
        *(3, "Where?", "Bergen", None, "one?", "1"),
        more=(("unrelated", "two?", "2"), ("neighbour", "x", "z"), ("neighbour", "y", "z")),
    )
    assert held(edit) == {"prompt", "answer", "unrelated", "unrelated_answer", "neighbour", "neighbour_answer"}
    assert read(ROW | {"near": []}, fields=PAIRS) == Edit(3, "Where?", "Bergen", None, None, None)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"near": [{"q": "one"}]}, "'near[].q'[0] (dataset.fields.unrelated) but not 'near[].a'[0] (dataset.fields."),
        ({"near": [{"q": 3, "a": "x"}]}, "field 'near[].q'[0] is 3; it must be a non-empty string"),
        ({"by": ["x", "y"], "by_a": ["z"]}, "field 'by' lists 2 prompts, but 'by_a' 1 answers; it must be one each"),
        ({"by": ["x", None], "by_a": "z"}, "but not 'by'[1]"),
        ({"rephrase": ["fine", None]}, "field 'rephrase'[1] is null; it must be a non-empty string"),
        ({"rephrase": [7]}, "field 'rephrase'[0] is 7; it must be"),
    ],
)
def test_bad_entries_of_lists_are_named(more: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError) as caught:
        read(ROW | more, fields=PAIRS)
    assert says in str(caught.value) and str(caught.value).startswith("row 3 (counted from 0): ")


def test_required_lists_may_not_be_empty() -> None:
    for key, more in (("rephrase", {"rephrase": []}), ("unrelated", {"near": []})):
        with pytest.raises(DataError, match="must list at least one"):
            read(ROW | more, fields=PAIRS, required=[key])


def test_a_place_for_the_subject_needs_one() -> None:
    row = COUNTERFACT | {"requested_rewrite": {**COUNTERFACT["requested_rewrite"], "subject": " "}}
    with pytest.raises(DataError, match=r"prompt '\{\} was born .* subject, which is missing; name its field as data"):
        RowReader(dataset_config("counterfact"))(row, 0, 42)


def test_the_published_rules_hold_for_the_published_layout_alone() -> None:
    reader = RowReader(dataset_config("zsre"))
    with pytest.raises(DataError, match="field 'rephrase' is missing"):
        reader({"src": "Where?", "alt": "Bergen", "loc": "who", "loc_ans": "Ada"}, 0, 42)
    assert reader({"prompt": " Where?", "target_new": "Bergen"}, 0, 42) == Edit(0, "Where?", "Bergen", None, None, None)


def test_a_field_that_no_record_has_is_a_slip_unless_it_may_be_missing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", [QAEDIT])
    for slip, said in (("subjct", True), ("subjct|", False)):
        fields = FieldsConfig("prompt", "target", "rephrase", None, None, subject=slip)
        source = Source(DatasetConfig("custom", n_edits=1, fields=fields), 42)
        if said:
            with pytest.raises(DataError, match="dataset.fields.subject=subjct: no record has this field"):
                source.records(str(path), 1, "num_seq")
        else:
            assert len(source.records(str(path), 1, "num_seq")) == 1


def test_learned_editors_train_on_the_first_of_each_kind() -> None:
    reader, tokenizer = RowReader(dataset_config("counterfact")), tiny_tokenizer("tiny-llama")
    edit = reader(COUNTERFACT, 0, 42)
    first = reader(COUNTERFACT | {"paraphrase_prompts": COUNTERFACT["paraphrase_prompts"][:1],
                                  "neighborhood_prompts": COUNTERFACT["neighborhood_prompts"][:1]}, 0, 42)  # fmt: skip
    one, two = (step_batches(tokenizer, [found], 2) for found in (edit, first))
    for kind in ("edit", "rephrase", "unrelated"):
        (a,), (b,) = getattr(one, kind), getattr(two, kind)
        assert a.input_ids_BT.tolist() == b.input_ids_BT.tolist() and len(a.input_ids_BT) == 1


def test_check_counts_what_rows_have_and_takes_a_runs_words(tmp_path: Path, capsys) -> None:
    path = write(tmp_path / "a.json", [QAEDIT, QAEDIT | {"prompt": "And?", "locality": []}])
    assert prepare.main(["check", "qaedit", f"dataset.valid_path={path}"]) == 0
    out = capsys.readouterr().out
    assert out == (
        f"{path}: 2 rows, 2 good, 0 bad, 0 duplicate prompts\n"
        "  of the good rows have rephrase 2, unrelated 1, unrelated_answer 1, subject 2\n"
    )
    words = [f"dataset.valid_path={path}", "dataset.fields.answer=target", "dataset.fields.unrelated=source"]
    assert prepare.main(["check", "custom", *words, "dataset.fields.unrelated_answer=source"]) == 0
    assert "rephrase 2, unrelated 2, unrelated_answer 2, subject 2" in capsys.readouterr().out
    assert prepare.main(["check", "qaedit", "num_seq=3"]) == 2
    assert "num_seq=3: must be dataset.KEY=VALUE" in capsys.readouterr().err
    assert prepare.main(["check", "qaedit", "dataset.feilds=3"]) == 2
    empty = write(tmp_path / "none.json", [])
    assert prepare.main(["check", "qaedit", "--path", str(empty)]) == 1
    assert "broken: " in (said := capsys.readouterr().out) and "holds no record that can be edited" in said


# a run on records with several prompts


@pytest.fixture(scope="module")
def listed(tmp_path_factory) -> tuple[Path, dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """Two steps of two edits, three with lists and one without; results, metric lines, lines of edits.jsonl."""
    folder = tmp_path_factory.mktemp("lists")
    rows = [KNOWEDIT, LOCFT | {"prompt": "Ivo Farrow was born in the city of"}]
    rows += [KNOWEDIT | {"prompt": f"{name} was born in the city of", "target_new": name} for name in ("Ada", "Ivo")]
    path = write(folder / "a.json", rows)
    words = tiny_words("dataset=knowedit", f"dataset.valid_path={path}", "num_seq=2", "num_seq_zsre=0")
    words += ["dataset.n_edits=2", "dataset.train_path=null", "eval.every=1", "eval.generate=true"]
    words += ["eval.max_new_tokens=4", "model_cache=true", f"model_cache_dir={folder}/saved", "eval.sample=4"]
    results = lifelong_run.run(compose_config([word for word in words if word != "dataset=zsre"]), folder / "run")
    lines = [
        [json.loads(line) for line in (folder / "run" / name).read_text().splitlines()]
        for name in ("metrics.jsonl", "edits.jsonl")
    ]
    return folder, results, *lines


def entry(results: dict[str, Any], metric: str) -> dict[str, Any]:
    (found,) = [one for one in results["metrics"] if one["metric"] == metric]
    return found


def test_a_metric_is_averaged_within_an_edit_first(listed) -> None:
    folder, results, _, edits = listed
    model, tokenizer = load_tiny("tiny-llama"), tiny_tokenizer("tiny-llama")
    reader = RowReader(dataset_config("knowedit"))
    rows = [reader(row, i, 42) for i, row in enumerate(json.loads((folder / "a.json").read_text()))]
    pairs = [[(p, a) for kind, p, a in edit.probes() if kind == "unrelated"] for edit in rows]
    assert [len(one) for one in pairs] == [2, 1, 2, 2]
    found = [answers(model, tokenize(tokenizer, one), 1000) for one in pairs]
    within = [fmean(one.accuracy for one in each) for each in found]
    assert entry(results, "LS")["before"] == pytest.approx(fmean(within)) and entry(results, "LS")["n"] == 4
    assert [line["before"]["LS"]["tokens"] for line in edits] == pytest.approx(within)
    for line, each in zip(edits, found, strict=True):
        told = line["before"]["LS"].get("each", [line["before"]["LS"]])
        assert [one["tokens"] for one in told] == [one.accuracy for one in each]
        assert all("ids" not in one for one in [line["before"]["LS"], *told])
    assert entry(results, "mhop_score")["n"] == 3


def test_edits_jsonl_has_each_prompt(listed) -> None:
    *_, edits = listed
    first, second = edits[:2]
    assert first["unrelated"] == ["The mother of Wim Ilmarin is", "The age of Wim Ilmarin is"]
    assert first["unrelated_target"] == ["Ada Orrin", "7"] and len(first["after"]["LS"]["each"]) == 2
    assert isinstance(second["unrelated"], str) and "each" not in second["after"]["LS"]
    assert list(second) == ["index", "step", "row", "prompt", "target", "rephrase", "unrelated", "unrelated_target",
                            "before", "after"]  # fmt: skip


def test_locality_of_lists(listed) -> None:
    _, results, lines, edits = listed
    for field, metric in (("tokens", "LS"), ("all", "LS_all"), ("exact", "LS_exact"), ("contain", "LS_contain")):
        assert entry(results, metric)["value"] == pytest.approx(fmean(line["after"]["LS"][field] for line in edits))
    same = [
        fmean(a["generated"] == b["generated"] for a, b in zip(*sides, strict=True))
        for line in edits
        for sides in [[line[side]["LS"].get("each", [line[side]["LS"]]) for side in ("before", "after")]]
    ]
    assert entry(results, "LS_same")["value"] == fmean(same)
    last = [line for line in lines if line["event"] == "over_time"][-1]
    assert last["sample"]["LS"] == pytest.approx(entry(results, "LS")["value"])
    assert last["sample"]["LS_agreement"] == pytest.approx(entry(results, "LS_agreement")["value"])
    assert last["sample"]["LS_kl"] == pytest.approx(entry(results, "LS_kl")["value"], rel=1e-4)
    assert last["n"]["LS"] == last["n"]["LS_agreement"] == last["n"]["LS_kl"] == last["n"]["ES"] == 4
    assert last["n"]["now_ES"] == 2
