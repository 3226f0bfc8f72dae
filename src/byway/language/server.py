"""A language model behind a server that speaks the OpenAI protocol: vLLM, SGLang, llama.cpp, Ollama, hosted ones.

Owns the requests and what can go wrong with them. By chat one request brings a ranked list, held to the candidates
by a JSON schema. By completions a model that was fine-tuned on the prompt of `prompts` chooses among names, one
request an answer: the second best is the best when the first is no longer among the choices. How answers are drawn
is sent with every request, never left to the server. It knows neither tables nor logs.
"""

import os
import random
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import httpx
import msgspec
import numpy as np
from numpy.typing import NDArray

from byway.base import config
from byway.base.errors import UserError
from byway.language import prompts
from byway.language.questions import Question, Questions

KEY = "BYWAY_SERVER_KEY"
"""Environment variable that holds the key of a server that asks for one."""
ATTEMPTS = 6
WAIT = 0.5
"""Seconds before the second attempt; twice as many before each further one, and as many as the server says."""
LONGEST_WAIT = 60.0
TIMEOUT = 120.0
"""Seconds for one answer."""
MOST = 4 << 20
"""Bytes of an answer."""
BUSY = {408, 409, 425, 429, 500, 502, 503, 504, 529}
SAMPLING: dict[str, Any] = {"temperature": 0, "top_p": 1, "seed": 0, "frequency_penalty": 0, "presence_penalty": 0}
"""Sent with every request: a server's own settings have hidden legal answers."""
REASON = 200
"""Tokens that a reason may take."""


class Usage(msgspec.Struct):
    """What answers took."""

    requests: int = 0
    read: int = 0
    """Tokens."""
    written: int = 0
    refused: int = 0
    """Answers that the model declined."""
    empty: int = 0
    """Answers that named no candidate."""

    def add(self, other: "Usage") -> None:
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Said(NamedTuple):
    """What was answered to one question."""

    row: int
    ranking: NDArray[np.int32]
    """[ranked] clusters that are named, best first; -1 where fewer are."""
    usage: Usage


Ask = Callable[[Questions], Generator[Said]]


class _Message(msgspec.Struct):
    """Of a chat completion."""

    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message = msgspec.field(default_factory=_Message)
    text: str = ""


class _Tokens(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Completion(msgspec.Struct):
    """What both protocols answer, as far as it is read."""

    choices: list[_Choice]
    usage: _Tokens | None = None

    def said(self) -> tuple[str, Usage]:
        """The text of the first choice, and what it took."""
        tokens = self.usage or _Tokens()
        usage = Usage(1, tokens.prompt_tokens or 0, tokens.completion_tokens or 0)
        choice = self.choices[0]
        usage.refused = int(bool(choice.message.refusal))
        return choice.message.content or choice.text, usage


def chat(question: Question, settings: config.Answers) -> dict[str, Any]:
    """The body of a chat request."""
    schema = {"name": "next_interests", "strict": True, "schema": question.schema()}
    roles = (("system", question.system), ("user", question.user))
    body = {
        "model": settings.model,
        "messages": [{"role": role, "content": text} for role, text in roles],
        "max_tokens": longest(question),
        "response_format": {"type": "json_schema", "json_schema": schema},
        **SAMPLING,
    }
    return with_extra(body, settings)


def longest(question: Question) -> int:
    """Tokens that an answer may take: three characters make one at the least, in the worst of scripts one."""
    worst = max(len(name) if not name.isascii() else len(name) // 3 for name in question.legal) + 8
    return 40 + question.ranked * worst + REASON * question.reasoned


def with_extra(body: dict[str, Any], settings: config.Answers) -> dict[str, Any]:
    """The body with the settings' own fields; one that is "" there is not sent."""
    return {name: value for name, value in {**body, **settings.extra}.items() if value != ""}


@dataclass(frozen=True, slots=True)
class Server:
    """The server of the settings, over one pool of connections."""

    settings: config.Answers
    client: httpx.Client
    stopped: threading.Event

    def ask(self, questions: Questions) -> Generator[Said]:
        """The answers as they come, in any order.

        Raises UserError where the server cannot be reached, refuses the request, or does not speak the protocol.
        Where this, or whoever reads, stops, what has not begun is not asked, nor paid for.
        """
        one = self._by_chat if self.settings.protocol == "chat" else self._by_choice
        with ThreadPoolExecutor(self.settings.at_once) as pool:
            asked = {pool.submit(one, questions, row): row for row in range(len(questions))}
            try:
                for each in as_completed(asked):
                    yield Said(asked.pop(each), *each.result())
            finally:
                self.stopped.set()
                pool.shutdown(cancel_futures=True)

    def _by_chat(self, questions: Questions, row: int) -> tuple[NDArray[np.int32], Usage]:
        found = self.post("/chat/completions", chat(questions[row], self.settings))
        said, usage = found.said()
        ranking = questions.ranking(row, said)
        usage.empty = int(ranking[0] < 0)
        return ranking, usage

    def _by_choice(self, questions: Questions, row: int) -> tuple[NDArray[np.int32], Usage]:
        ranking, usage = np.full(questions.ranked, -1, np.int32), Usage()
        # The blank is part of the name's first token.
        left = {f" {questions.names[c]}": c for c in questions.candidates[row].tolist() if c >= 0}
        prompt = prompts.text([questions.names[c] for c in questions.pairs[row].tolist()])
        for place in range(min(questions.ranked, len(left))):
            body = {
                "model": self.settings.model,
                "prompt": prompt,
                "max_tokens": max(map(len, left)),
                **SAMPLING,
                **limits(list(left), self.settings.protocol),
            }
            said, took = self.post("/completions", with_extra(body, self.settings)).said()
            usage.add(took)
            name = f" {said.strip()}"
            if name not in left:
                raise UserError(
                    f"{self.settings.url} said {said[:60]!r}, which was not among the choices: it does not take "
                    f'{self.settings.protocol}; set another answers.protocol, or "chat".'
                )
            ranking[place] = left.pop(name)
        return ranking, usage

    def post(self, path: str, body: dict[str, Any]) -> Completion:
        """Post, again where the server is busy or was cut off. Raises UserError where it does not answer."""
        address, said, wait = self.settings.url.rstrip("/") + path, "", WAIT
        for attempt in range(ATTEMPTS):
            if attempt and self.stopped.wait(wait):
                break
            wait = min(LONGEST_WAIT, WAIT * 2**attempt * random.uniform(0.8, 1.2))
            try:
                with self.client.stream("POST", address, content=msgspec.json.encode(body)) as answer:
                    data = self._received(answer)
            except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
                raise UserError(
                    f"{self.settings.url!r} is no address of a server; write http://host:port/v1."
                ) from error
            except httpx.HTTPError as error:
                said = str(error) or type(error).__name__
                continue
            if answer.status_code == 200:
                return self._read(data)
            said = f"{answer.status_code} {' '.join(data[:200].decode('utf-8', 'replace').split())}"
            if answer.status_code not in BUSY:
                break
            wait = max(wait, min(LONGEST_WAIT, seconds(answer.headers.get("retry-after"))))
        raise UserError(
            f"The language model at {self.settings.url} does not answer ({said}); is it running, as "
            f"{self.settings.model!r}? What is answered is kept: the same command goes on from there."
        )

    def _received(self, answer: httpx.Response) -> bytes:
        data = bytearray()
        for part in answer.iter_bytes():
            data += part
            if len(data) > MOST:
                raise UserError(f"{self.settings.url} sends more than {MOST >> 20} MB for one answer.")
        return bytes(data)

    def _read(self, data: bytes) -> Completion:
        try:
            found = msgspec.json.decode(data, type=Completion)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{self.settings.url} does not speak the OpenAI protocol: {error}.") from error
        if not found.choices:
            raise UserError(f"{self.settings.url} answered without a choice.")
        return found


def limits(choices: list[str], protocol: str) -> dict[str, Any]:
    """How a completion is held to some choices."""
    if protocol == "structured_outputs":
        return {"structured_outputs": {"choice": choices}}
    if protocol == "guided_choice":
        return {"guided_choice": choices}
    quoted = (choice.replace("\\", "\\\\").replace('"', '\\"') for choice in choices)
    return {"grammar": "root ::= " + " | ".join(f'"{choice}"' for choice in quoted)}


def seconds(header: str | None) -> float:
    """What `Retry-After` asks for, where it is a number; dates are hardly used, and 0 here."""
    try:
        return max(0.0, float(header or 0))
    except ValueError:
        return 0.0


@contextmanager
def connected(settings: config.Answers) -> Generator[Ask]:
    """What asks the server of the settings."""
    with client(settings) as own:
        yield lambda asked: replace(own, stopped=threading.Event()).ask(asked)


@contextmanager
def client(settings: config.Answers) -> Generator[Server]:
    """The server of the settings, with connections of its own."""
    key = os.environ.get(KEY)
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    limit = httpx.Limits(max_connections=settings.at_once, max_keepalive_connections=settings.at_once)
    with httpx.Client(headers=headers, timeout=TIMEOUT, limits=limit, trust_env=True) as connections:
        yield Server(settings, connections, threading.Event())
