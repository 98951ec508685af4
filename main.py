"""Lifelong sequential model editing: python main.py KEY=VALUE ...   (python main.py --help)."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import cast

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from config.check import ConfigError, RunError, check_override_names
from config.compose import one_line, said
from config.experiments import editor_keys
from config.schema import Config, register
from config.scoring import with_run_dir
from config.sites import quoted
from files import regular
from lifelong.job import EXPECTED, execute, sweep_job
from lifelong.other import words_of_other
from lifelong.outside import config_dir, use_editors
from lifelong.status import Interrupted
from lifelong.sweep import prefer_our_presets, swept
from lifelong.torchrun import led

log = logging.getLogger(__name__)
register()
# on a shared machine, threads that spin while they wait cost several times the work (6.3 s against 2.7 s)
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@hydra.main(version_base="1.3", config_path="config", config_name="config")
def job(cfg: DictConfig) -> None:
    """One run in Hydra's run directory, or one job of a sweep."""
    context = HydraConfig.get()
    if context.mode is RunMode.MULTIRUN:
        return sweep_job(cfg)
    with one_line(*EXPECTED, OSError):
        if applied := editor_keys(context.runtime.choices, context.overrides.task):
            log.info(applied)
        execute(cast(Config, OmegaConf.to_object(cfg)), Path(context.runtime.output_dir), context.overrides.task)


def with_saved_overrides(argv: list[str]) -> list[str]:
    """Where resume=RUN_DIR is asked for: that run's own overrides, in its own directory, unless said anew.

    continue_from and undo take another run's keys into a directory of their own (lifelong/other.py).
    """
    asked = [word.removeprefix("resume=") for word in argv if word.startswith("resume=")]
    if not asked or asked[-1] == "null":
        return words_of_other(argv)
    saved = Path(asked[-1]).expanduser() / ".hydra"
    keys = {word.partition("=")[0].lstrip("+") for word in argv}
    try:
        found = yaml.safe_load(regular(saved / "overrides.yaml").read_text(encoding="utf-8"))
        words = [word for word in found if word.partition("=")[0].lstrip("+") not in keys]
        record = as_it_was(saved, argv)
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError, OmegaConfBaseException) as error:
        what = "holds no .hydra/overrides.yaml and hydra.yaml that say what it ran"
        raise ConfigError(f"resume={asked[-1]}: {what} ({said(error)}); start again") from error
    return [*words, *argv, f"hydra.run.dir={saved.parent.resolve()}", *record]


def as_it_was(saved: Path, argv: list[str]) -> list[str]:
    """What makes Hydra treat a run that goes on as the run that it was, and leave its own record of it as it is."""
    path, words = saved / "hydra.yaml", ["hydra.output_subdir=null"]
    hydra = OmegaConf.load(regular(path)).hydra if path.exists() else OmegaConf.create()
    number = OmegaConf.select(hydra, "job.num")
    words += [] if number is None else [f"hydra.job.num={number}"]
    single = number is not None or OmegaConf.select(hydra, "mode") == "RUN"  # its experiment may be one of sweeps
    words += ["hydra.mode=RUN"] if single else []
    folders = [s.path for s in OmegaConf.select(hydra, "runtime.config_sources") or () if s.provider == "command-line"]
    return words + (["--config-dir", folders[0]] if folders and config_dir(argv) is None else [])


def main() -> None:
    """Check the names on the command line, then let Hydra compose and run."""
    try:
        with one_line(RunError), led():
            argv = ["verbose=true" if word == "-v" else quoted(word) for word in sys.argv[1:]]
            sys.argv[1:] = with_run_dir(with_saved_overrides(argv))
            check_override_names(sys.argv[1:], use_editors(sys.argv[1:]))
            prefer_our_presets()
            with swept():
                job()
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(stop.code)


if __name__ == "__main__":
    main()
