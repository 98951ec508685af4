"""config/sites.py: what sites in braces stand for, that writing and reading them are inverse, and the command line."""

from __future__ import annotations

import re
import shlex

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import MISSING, OmegaConf

from config.check import ConfigError
from config.compose import compose_config
from config.schema import ModelConfig
from config.sites import expand_sites, fold_sites, layers, override, pattern, quoted, ranges
from tests.tiny import run_main, tiny_words

DOWN = "model.layers.{}.mlp.down_proj"
NUMBERS = st.integers(0, 40) | st.integers(0, 999_999)
WORDS = st.sampled_from(["model", "h", "layers", "mlp", "e", "1x", "007", "1000000", "fc_out", "²"])
NAMES = st.lists(WORDS | NUMBERS.map(str), min_size=1, max_size=5).map(".".join)


@st.composite
def runs_of_names(draw: st.DrawFn) -> list[str]:
    """Names as models have them, layers of experts and attention heads, in any order and number."""
    names: list[str] = []
    for _ in range(draw(st.integers(0, 4))):
        template = draw(st.sampled_from(["h.{}.fc", "layers.{}.experts.{}.up", "{}", "lm_head", "a.{}.b.{}.c.{}"]))
        columns = [draw(st.lists(st.integers(0, 6), min_size=1, max_size=4)) for _ in range(template.count("{}"))]
        names += expand_sites([template.format(*(f"{{{','.join(map(str, column))}}}" for column in columns))])
    return names


@pytest.mark.parametrize(
    ("entry", "numbers"),
    [
        ("{28-31}", [28, 29, 30, 31]),
        ("{11,12,22-24}", [11, 12, 22, 23, 24]),
        ("{5-5}", [5]),
        ("{7,3}", [7, 3]),
        ("{9-10}", [9, 10]),
    ],
)
def test_a_brace_counts_in_the_order_written(entry, numbers):
    assert expand_sites([DOWN.format(entry)]) == [DOWN.format(number) for number in numbers]


def test_of_several_braces_the_last_counts_fastest():
    names = ["h.0.e.1.x", "h.0.e.2.x", "h.1.e.1.x", "h.1.e.2.x"]
    assert expand_sites(["h.{0-1}.e.{1,2}.x", "lm_head"]) == [*names, "lm_head"]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("a.{3-1}.b", "{3-1} counts down, write 1-3"),
        ("a.{a}.b", "{a} does not list whole numbers"),
        ("a.{}.b", "{} does not list whole numbers"),
        ("a.{1,}.b", "{1,} does not list whole numbers"),
        ("a.{1-}.b", "{1-} does not list whole numbers"),
        ("a.{-1}.b", "{-1} does not list whole numbers"),
        ("a.{1-2-3}.b", "{1-2-3} does not list whole numbers"),
        ("a.{01}.b", "{01} does not list whole numbers"),
        ("a.{1..3}.b", "{1..3} does not list whole numbers"),
        ("a.{1.b", "braces do not match"),
        ("a.1}.b", "braces do not match"),
        ("a.{{1}}.b", "braces do not match"),
        ("a.{0-1000000000}.b", "does not list whole numbers"),
        ("a.{0-99999}.{0-99999}.b", "more than 100,000 modules"),
    ],
)
def test_a_bad_range_is_refused_with_what_would_be_right(entry, said):
    with pytest.raises(ConfigError) as error:
        ModelConfig(edit_modules=["a.0.b", entry])
    for part in (f"model.edit_modules={entry}: ", said, "model.layers.{28-31}.mlp.down_proj", "{11,12,22-24}"):
        assert part in str(error.value)


def test_the_typed_config_holds_every_name():
    cfg = ModelConfig(name="x", name_or_path="x", edit_modules=["h.{0-2}.fc", "lm_head"])
    assert cfg.edit_modules == ["h.0.fc", "h.1.fc", "h.2.fc", "lm_head"]
    assert OmegaConf.to_object(OmegaConf.structured(cfg)) == cfg
    merged = OmegaConf.merge(OmegaConf.structured(ModelConfig), {"name": "x", "name_or_path": "x"})
    assert OmegaConf.to_object(OmegaConf.merge(merged, {"edit_modules": ["h.{0-2}.fc", "lm_head"]})) == cfg


def test_sites_that_nobody_named_stay_missing():
    assert ModelConfig().edit_modules == MISSING
    assert OmegaConf.is_missing(OmegaConf.structured(ModelConfig()), "edit_modules")


def test_ranges():
    assert ranges([5, 0, 1, 2, 2, 7, 8]) == "0-2,5,7-8" and ranges([]) == "" and ranges([3]) == "3"


@given(st.lists(NUMBERS, min_size=1, max_size=30))
def test_ranges_are_read_back(numbers):
    assert expand_sites([f"{{{ranges(numbers)}}}"]) == [str(number) for number in sorted(set(numbers))]


@given(st.lists(NAMES, max_size=8) | runs_of_names())
@example(["h.1.e.0", "h.0.e.0", "h.0.e.1"])
def test_folding_and_expanding_are_inverse(names):
    folded = fold_sites(names)
    assert expand_sites(folded) == names
    assert fold_sites(expand_sites(folded)) == folded and len(folded) <= len(names)


@given(NAMES)
def test_a_name_is_its_pattern_and_its_layers(name):
    assert pattern(name).format(*layers(name)) == name


def test_folding_is_as_short_as_it_looks():
    names = [f"layers.{layer}.experts.{expert}.up" for layer in range(4) for expert in range(8)]
    assert fold_sites(names) == ["layers.{0-3}.experts.{0-7}.up"]
    gate_up = [f"h.{layer}.{part}" for part in ("gate", "up") for layer in (1, 2, 5)]
    assert fold_sites([*gate_up, "h.7.up", "lm_head"]) == ["h.{1-2,5}.gate", "h.{1-2,5,7}.up", "lm_head"]


# the command line


@pytest.mark.parametrize(
    "word",
    [
        """'model.edit_modules=["model.layers.{28-31}.mlp.down_proj"]'""",
        "'model.edit_modules=[model.layers.{28-31}.mlp.down_proj]'",
        """"model.edit_modules=['model.layers.{28,29,30-31}.mlp.down_proj']" """,
        "'model.edit_modules=[model.layers.28.mlp.down_proj, model.layers.{29,30,31}.mlp.down_proj]'",
        r"'model.edit_modules=[model.layers.\{28-31\}.mlp.down_proj]'",
    ],
)
def test_the_ways_to_write_it(word):
    cfg = compose_config(["model=mistral-7b", *shlex.split(word)])
    assert cfg.model.edit_modules == [DOWN.format(layer) for layer in (28, 29, 30, 31)]


@pytest.mark.parametrize(
    "word",
    [
        "model.edit_modules=[a,b]",
        "model.edit_modules=[${x}]",
        'model.edit_modules=["a.{1}"]',
        "x={1}",
        "-m",
        "~model.x",
    ],
)
def test_other_words_stay_as_they_are(word):
    assert quoted(word) == word


def test_a_sweep_over_sites_is_quoted_too():
    word = "model.edit_modules=[a.{1-2}.x,b],[c.{3}.{4,5}]"
    assert quoted(word) == 'model.edit_modules=["a.{1-2}.x",b],["c.{3}.{4,5}"]' == quoted(quoted(word))


@pytest.mark.parametrize("element", ["a.{3-1}.b", "a.{}.b", "a.{1.b", "a.1}.b", "a.{1}.b}", "{", "a.{1,2.b"])
def test_a_bad_range_without_quotes_is_refused_in_our_words(element):
    with pytest.raises(ConfigError, match=r"model\.edit_modules=.*(counts down|whole numbers|do not match)"):
        compose_config(["model=mistral-7b", f"model.edit_modules=[{element}]"])


def test_the_offered_word_is_read_back():
    names = [*(DOWN.format(layer) for layer in (3, 4, 9)), "lm_head"]
    assert override(names) == """model.edit_modules=["model.layers.{3-4,9}.mlp.down_proj",lm_head]"""
    assert compose_config(["model=mistral-7b", override(names)]).model.edit_modules == names


def test_main_reads_ranges_and_refuses_bad_ones(tmp_path):
    """The real program, without double quotes: the listing marks the range; a bad one is one line and no folder."""
    words = [word for word in tiny_words() if not word.startswith("model.edit_modules")]
    done = run_main(*words, "model.edit_modules=[model.layers.{1-3}.mlp.down_proj]", "inspect=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert """'model.edit_modules=["model.layers.{1-3}.mlp.down_proj"]'""" in done.stdout and "3 (1-3)" in done.stdout
    done = run_main(*words, "model.edit_modules=[model.layers.{3-1}.mlp.down_proj]", cwd=tmp_path)
    assert done.returncode == 1
    assert re.fullmatch(r"error: model\.edit_modules=model\.layers\.\{3-1\}\.mlp\.down_proj: .*\n", done.stderr)
