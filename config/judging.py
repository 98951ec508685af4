"""Checks of eval.judge_url and eval.judge_model that need no server."""

from __future__ import annotations

from urllib.parse import urlsplit

from config.errors import ConfigError
from config.schema import EvalConfig

API_KEY = "JUDGE_API_KEY"
"""The environment variable that holds the server's key; it is sent to the server and written nowhere."""
RIGHT = "it must be http://HOST:PORT/v1 or https://HOST/v1, below which chat/completions answers"


def check_judge_url(url: str) -> None:
    """Refuse what is no address of a server, and an address with a secret in it, which is not shown again.

    Raises:
        ConfigError: what is wrong, and what would be right.
    """
    if any(sign in url for sign in "@?#"):
        raise ConfigError(f"eval.judge_url: holds @, ? or #; {RIGHT}; a password or key belongs into {API_KEY}")
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # of a port, or of brackets
        sound = False
    if not sound or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigError(f"eval.judge_url={url}: {RIGHT}")


def check_judge(cfg: EvalConfig) -> None:
    """Refuse a judge that cannot be asked, or that has nothing to judge.

    Raises:
        ConfigError: names the key, its value and what would be right.
    """
    if cfg.judge_model is not None and (cfg.judge_url is None or not cfg.judge_model.strip()):
        needs = "needs eval.judge_url=URL, the server that has it" if cfg.judge_url is None else "must name a model"
        raise ConfigError(f"eval.judge_model={cfg.judge_model}: {needs}; null for the server's own")
    if cfg.judge_url is None:
        return
    check_judge_url(cfg.judge_url)
    if not cfg.generate or cfg.generate_sample == 0:
        key = "eval.generate=true" if not cfg.generate else "eval.generate_sample above 0"
        raise ConfigError(f"eval.judge_url={cfg.judge_url}: judges generated answers; it needs {key}")
