"""An LLM judge behind an OpenAI-compatible server (vLLM, llama.cpp): one question, one word (docs/evaluation.md).

The only part of a run that talks to another machine beside wandb and the hub; nothing of it is used without
eval.judge_url. The key of the server comes from the environment and stands in no message and no file.
"""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from config.check import ConfigError
from config.judging import API_KEY
from config.schema import EvalConfig
from files import printable

TEMPLATE = (
    "Question: {prompt}\nReference answer: {target}\nAnswer to check: {answer}\n\n"
    "Does the answer to check mean the same as the reference answer? Reply with one word, yes or no."
)
VERDICTS = {"yes": True, "no": False}
REPLY_TOKENS = 8
TIMEOUT = 60.0  # seconds that a reply may take
TRIES = 3
PAUSE = 1.0  # seconds before the second try; twice as long before every other
MOST = 2**20  # bytes of a reply
AGAIN = (408, 425, 429)  # the only ones of the client's errors that another try may mend


class JudgeError(RuntimeError):
    """The server gave no reply that can be read; the message says why, without the key."""


class _NoRedirects(HTTPRedirectHandler):
    """A server that sends elsewhere would have the key sent there, too."""

    def redirect_request(self, *_: object) -> None:
        """None: the redirection is an error of the server's."""


_OPENER = build_opener(_NoRedirects)


@dataclass(frozen=True, slots=True)
class Judge:
    """A server, and the model that is asked there; None: the server has one."""

    url: str
    model: str | None = None
    key: str = field(default="", repr=False)

    def reply(self, question: str, tries: int = TRIES) -> str:
        """What the server answers, at temperature 0.

        Raises:
            JudgeError: nothing that can be read came after `tries` tries.
        """
        for tried in range(1, tries + 1):
            try:
                return self._clean(self._post(question))
            except (OSError, HTTPException, ValueError, LookupError, TypeError, RecursionError) as error:
                said = _told(error)
                lasting = isinstance(error, HTTPError) and error.code < 500 and error.code not in AGAIN
                if tried == tries or lasting:
                    raise JudgeError(printable(self._clean(said))) from None
                time.sleep(PAUSE * 2 ** (tried - 1))
        raise ValueError(f"tries={tries}: must be above 0")

    def _post(self, question: str) -> str:
        asked: dict[str, Any] = {"messages": [{"role": "user", "content": question}]}
        asked |= {"temperature": 0, "max_tokens": REPLY_TOKENS} | ({"model": self.model} if self.model else {})
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        request = Request(f"{self.url.rstrip('/')}/chat/completions", json.dumps(asked).encode(), headers)
        with _OPENER.open(request, timeout=TIMEOUT) as response:
            content = json.loads(_read(response))["choices"][0]["message"]["content"]
        if not isinstance(content, str):
            raise TypeError(f"the content is {type(content).__name__}")
        return content

    def _clean(self, text: str) -> str:
        return text.replace(self.key, "***") if self.key else text


def _read(response: HTTPResponse) -> bytes:
    """The body; a server that trickles it is as late as one that hangs."""
    body, end = b"", time.monotonic() + TIMEOUT
    while part := response.read1(MOST):
        body += part
        if len(body) > MOST or time.monotonic() > end:
            raise TimeoutError("the reply is too long or too slow")
    return body


def _told(error: Exception) -> str:
    if isinstance(error, HTTPError):
        with error:
            try:
                body = " ".join(error.read(2000).decode(errors="replace").split())
            except (OSError, HTTPException):
                body = ""
        return f"HTTP {error.code} {body}".strip()
    if isinstance(error, OSError | HTTPException):
        return str(getattr(error, "reason", error)) or type(error).__name__
    return f"no reply as of chat completions ({type(error).__name__}: {error})"


def verdict(reply: str) -> bool | None:
    """Yes or no by the first word of a reply; None where it is neither."""
    word = re.search(r"\w+", reply)
    return VERDICTS.get(word[0].lower()) if word else None


def judge_of(cfg: EvalConfig) -> Judge | None:
    """The judge that is asked for, if any.

    Raises:
        ConfigError: the key in the environment is none.
    """
    if cfg.judge_url is None:
        return None
    key = os.environ.get(API_KEY, "").strip()
    if not key.isascii() or (key and not key.isprintable()):
        raise ConfigError(f"{API_KEY}: the key in the environment holds characters that no header can; set it anew")
    return Judge(cfg.judge_url, cfg.judge_model, key)


def reach_judge(cfg: EvalConfig) -> None:
    """Ask the judge that is asked for, if any, a question, before anything is computed.

    Raises:
        ConfigError: it does not reply, or not with yes or no.
    """
    if (judge := judge_of(cfg)) is None:
        return
    at = f"eval.judge_url={judge.url}" + (f" eval.judge_model={judge.model}" if judge.model else "")
    try:
        reply = judge.reply(TEMPLATE.format(prompt="The capital of France is", target="Paris", answer="Paris"), tries=1)
    except JudgeError as error:
        hint = "" if judge.key else f" ({API_KEY} is not set)"
        raise ConfigError(
            f"{at}: no judge answers there: {str(error)[:300]}{hint}; start it, or null for none"
        ) from None
    if verdict(reply) is None:
        said = printable(reply)[:100]
        raise ConfigError(f"{at}: replies {said!r}, neither yes nor no; take a model that answers in one word")
