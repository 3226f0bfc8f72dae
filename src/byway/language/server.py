"""A language model behind a server that speaks the OpenAI protocol with guided choice: vLLM, SGLang and others.

Owns the requests and what can go wrong with them. Prompts are sent as tokens, so that the server reads exactly what
the model was tuned on; it must be the model of 07-language-model, tuned with `attention = "causal"`, since block
attention is ours alone. Answers come one a request: the second best is the best when the first is no longer among
the choices. A server decodes greedily token by token, which need not find the most probable name: in this process
`generate.top` is exact.
"""

import http.client
import os
import time
import urllib.parse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from byway.base.errors import UserError
from byway.language.prompts import Prompt

KEY = "BYWAY_SERVER_KEY"
"""Environment variable that holds the key of a server that asks for one."""
ATTEMPTS = 4
WAIT = 0.5
"""Seconds before the second attempt; twice as many before each further one."""
BUSY = {408, 429, 500, 502, 503, 504}


class _LogProbs(msgspec.Struct):
    token_logprobs: list[float | None] = []


class _Choice(msgspec.Struct):
    text: str
    logprobs: _LogProbs | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]


@dataclass(frozen=True, slots=True)
class Server:
    """The model called `model` at `url`, for example http://127.0.0.1:8000/v1."""

    url: str
    model: str
    prompt: Prompt
    names: Sequence[str]
    """Descriptions of the clusters, in their order."""
    dialect: Literal["structured_outputs", "guided_choice"] = "structured_outputs"
    """How the server takes choices: vLLM from 0.12 on, or before."""
    at_once: int = 16
    """Requests under way together; the server batches them."""
    timeout: float = 120.0
    """Seconds for one answer."""

    def best(
        self, context_NK: NDArray[np.int32], n: int, excluded_NM: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The n best legal answers to N contexts, best first, and the server's log-probabilities; -1 where none is.

        Raises UserError where the server cannot be reached, refuses, or answers what was not a choice.
        """
        clusters = np.full((len(context_NK), n), -1, np.int32)
        scores = np.full((len(context_NK), n), -np.inf, np.float32)

        def fill(row: int) -> None:
            left = np.flatnonzero(~excluded_NM[row]).tolist()
            tokens = self.prompt.tokens(context_NK[row].tolist())
            for place in range(min(n, len(left))):
                chosen, scores[row, place] = self._choose(tokens, left)
                clusters[row, place] = chosen
                left.remove(chosen)

        with ThreadPoolExecutor(self.at_once) as pool:
            list(pool.map(fill, range(len(context_NK))))
        return clusters, scores

    def freely(self, context_NK: NDArray[np.int32]) -> list[str]:
        """What the model says without constraint, greedily, up to the end of its line."""

        def say(context: list[int]) -> str:
            return self._complete(self.prompt.tokens(context), {}).text.split("\n")[0].strip()

        with ThreadPoolExecutor(self.at_once) as pool:
            return list(pool.map(say, context_NK.tolist()))

    def _choose(self, tokens: list[int], among: list[int]) -> tuple[int, float]:
        """The cluster that the server chooses among some, and its log-probability (NaN where it does not say)."""
        # The blank is part of the name's first token.
        legal = {f" {self.names[c]}": c for c in among}
        guide = list(legal)
        limit = {"choice": guide} if self.dialect == "structured_outputs" else guide
        answer = self._complete(tokens, {self.dialect: limit})
        chosen = legal.get(answer.text, legal.get(f" {answer.text}"))
        if chosen is None:
            raise UserError(
                f"{self.url} answered {answer.text[:60]!r}, which was not among the choices: it does not take "
                f"{self.dialect}; try the other dialect, or a server with guided choice."
            )
        nats = [p for p in (answer.logprobs.token_logprobs if answer.logprobs else []) if p is not None]
        return chosen, float(sum(nats)) if nats else float("nan")

    def _complete(self, tokens: list[int], more: dict[str, Any]) -> _Choice:
        longest = max(map(len, self.prompt.answers))
        body = {"model": self.model, "prompt": tokens, "max_tokens": longest, "temperature": 0, "logprobs": 1}
        data = self._post("/completions", msgspec.json.encode({**body, **more}))
        try:
            found = msgspec.json.decode(data, type=_Completion)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{self.url} does not speak the OpenAI protocol: {error}.") from error
        if not found.choices:
            raise UserError(f"{self.url} answered without a choice.")
        return found.choices[0]

    def _post(self, path: str, body: bytes) -> bytes:
        """Post, again where the server is busy or was cut off."""
        said = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(WAIT * 2 ** (attempt - 1))
            connection = self._connection()
            try:
                connection.request("POST", self._target.path.rstrip("/") + path, body, self._headers())
                answer = connection.getresponse()
                data = answer.read()
            except (OSError, http.client.HTTPException) as error:
                said = str(error) or type(error).__name__
                continue
            finally:
                connection.close()
            if answer.status == 200:
                return data
            said = f"{answer.status} {data[:200].decode('utf-8', 'replace').strip()}"
            if answer.status not in BUSY:
                break
        raise UserError(
            f"The language model at {self.url} does not answer ({said}); is it running, as {self.model!r}?"
        )

    @property
    def _target(self) -> urllib.parse.SplitResult:
        return urllib.parse.urlsplit(self.url)

    def _connection(self) -> http.client.HTTPConnection:
        kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        kind = kinds.get(self._target.scheme)
        if kind is None or self._target.hostname is None:
            raise UserError(f"{self.url!r} is no address of a server; write http://host:port/v1.")
        return kind(self._target.hostname, self._target.port, timeout=self.timeout)

    def _headers(self) -> dict[str, str]:
        key = os.environ.get(KEY)
        return {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
