"""config/*.yaml as people read them: each file says what it is, each key what it does, sites stand as ranges."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml
from omegaconf import MISSING

from config.schema import ModelConfig
from config.sites import expand_sites, fold_sites
from tests.test_configs import CONFIG, EXPERIMENTS, GROUPS


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_says_what_it_is(name):
    first, second, *_ = (CONFIG / "experiment" / f"{name}.yaml").read_text().splitlines()
    assert first == "# @package _global_"
    assert re.fullmatch(r"# \S.{10,}", second), "the second line describes the experiment in one line"


def test_what_experiments_share_is_no_experiment():
    shared = sorted((CONFIG / "experiment").glob("*/*.yaml"))
    assert {path.parent.name for path in shared} == {"published", "embedded"}
    for path in shared:
        first, second, *_ = path.read_text().splitlines()
        assert first == "# @package _global_" and re.fullmatch(r"# \S.{10,}", second), path


@pytest.mark.parametrize("file", sorted(str(path.relative_to(CONFIG)) for path in CONFIG.glob("[em]*/**/*.yaml")))
def test_sites_stand_as_ranges(file):
    """A file names sites in the form that inspect=true prints, the shortest."""
    content = yaml.safe_load((CONFIG / file).read_text())
    sites = (content if file.startswith("model/") else content.get("model", {})).get("edit_modules", [])
    assert sites == MISSING or sites == fold_sites(expand_sites(sites))


def uncommented(path: Path) -> list[str]:
    """Keys with a value and no comment on their line or the line above. A group's `name` is its file's subject."""
    found, above, hydra_block = [], "", False
    for line in path.read_text().splitlines():
        hydra_block = line.startswith("hydra:") or (hydra_block and not re.match(r"\w", line))
        match = re.match(r"\s*([\w.]+):\s*(\S.*)$", line)
        if match and not hydra_block and "#" not in line and not above.lstrip().startswith("#"):
            found.append(match[1])
        above = line
    return found


def parents(path: Path) -> list[Path]:
    """The files of its group that a file starts from, theirs among them."""
    names = [name for name in yaml.safe_load(path.read_text()).get("defaults", []) if isinstance(name, str)]
    files = [path.parent / f"{name}.yaml" for name in names]
    return [above for file in files if file.is_file() for above in (file, *parents(file))]


def commented(path: Path) -> set[str]:
    """Keys with a comment on their line."""
    return set(re.findall(r"^\s*([\w.]+):.* # \S", path.read_text(), flags=re.MULTILINE))


@pytest.mark.parametrize("file", ["config.yaml", *(f"{g}/{n}.yaml" for g in GROUPS for n in GROUPS[g])])
def test_every_key_is_commented(file):
    """In its own file or in one that this starts from."""
    known = {key for path in parents(CONFIG / file) for key in commented(path)}
    assert set(uncommented(CONFIG / file)) - known == set()


def test_each_key_of_a_model_is_commented_once():
    keys = {key for name in GROUPS["model"] for key in commented(CONFIG / "model" / f"{name}.yaml")}
    assert keys == set() and commented(CONFIG / "model" / "base" / "common.yaml") == set(get_type_hints(ModelConfig))
