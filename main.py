"""Lifelong sequential model editing: python main.py KEY=VALUE ...   (python main.py --help)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from config.check import ConfigError, RunError, check_override_names, check_values
from config.schema import register
from data.base import DataError
from editor.interrupt import Interrupted

register()
# on a shared machine, threads that spin while they wait cost several times the work (6.3 s against 2.7 s)
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@hydra.main(version_base="1.3", config_path="config", config_name="config")
def job(cfg: DictConfig) -> float:
    """One run in Hydra's run directory."""
    try:
        config = OmegaConf.to_object(cfg)
        check_values(config)
        from editor.lifelong import run  # torch and transformers load only when a run starts

        results = run(config, Path(HydraConfig.get().runtime.output_dir))
    except (ConfigError, DataError, RunError) as error:
        if HydraConfig.get().mode is RunMode.RUN:
            sys.exit(f"error: {error}")
        raise
    return results["ES"]


def with_saved_overrides(argv: list[str]) -> list[str]:
    """Where resume=RUN_DIR is asked for: that run's own overrides, in its own directory, unless said anew."""
    asked = [word.removeprefix("resume=") for word in argv if word.startswith("resume=")]
    if not asked or asked[-1] == "null":
        return argv
    saved = Path(asked[-1]).expanduser() / ".hydra" / "overrides.yaml"
    if not saved.is_file():
        raise ConfigError(
            f"resume={asked[-1]}: holds no .hydra/overrides.yaml, so nothing says what it ran; start again"
        )
    keys = {word.partition("=")[0].lstrip("+") for word in argv}
    words = [word for word in OmegaConf.load(saved) if word.partition("=")[0].lstrip("+") not in keys]
    return [*words, *argv, f"hydra.run.dir={saved.parent.parent.resolve()}"]


def main() -> None:
    """Check the names on the command line, then let Hydra compose and run."""
    try:
        sys.argv[1:] = with_saved_overrides(sys.argv[1:])
        check_override_names(sys.argv[1:])
        job()
    except ConfigError as error:
        sys.exit(f"error: {error}")
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(stop.code)


if __name__ == "__main__":
    main()
