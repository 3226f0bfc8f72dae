"""A language model behind a real server process on loopback, against the same model in this process."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from byway.base.errors import UserError
from byway.language import server as servers
from byway.language.asking import InProcess, LanguageModel
from byway.language.fast.generate import policy
from byway.language.prompts import ENDINGS, Prompt, tokenise
from byway.language.server import Server
from tests.language.conftest import HOSTILE, make_tiny
from tests.language.served import greedy

# Line breaks end an unconstrained answer, and no description holds one.
NAMES = [name for name in HOSTILE if "\n" not in name]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads that wait for each other on a busy machine make a tiny model slow."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def prompt(tokenizer: Any) -> Prompt:
    return tokenise(NAMES, 2, tokenizer, ENDINGS["causal"])


@pytest.fixture(scope="module")
def start() -> Iterator[Callable[..., str]]:
    """The address of a server with a fault, or without."""
    command = [sys.executable, "-m", "tests.language.served"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield lambda fault="": f"http://127.0.0.1:{port}/{fault}/v1" if fault else f"http://127.0.0.1:{port}/v1"
        process.kill()


def contexts(seed: int, n: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    context = np.random.default_rng(seed).integers(0, len(NAMES), (n, 2)).astype(np.int32)
    excluded = np.zeros((n, len(NAMES)), bool)
    np.put_along_axis(excluded, context.astype(np.int64), True, axis=1)
    return context, excluded


@pytest.mark.parametrize("dialect", ["structured_outputs", "guided_choice"])
def test_answers_are_those_of_the_same_model_here(start: Any, prompt: Prompt, dialect: Any) -> None:
    context, excluded = contexts(0, 3)
    asked = Server(start(), "tiny", prompt, NAMES, dialect, at_once=4)
    clusters, scores = asked.best(context, 2, excluded)
    model = make_tiny()
    for row in range(len(context)):
        left = np.flatnonzero(~excluded[row]).tolist()
        for place in range(2):
            spoken, total = greedy(
                model, prompt.tokens(context[row].tolist()), [prompt.answers[c] for c in left], 99
            )
            chosen = next(c for c in left if prompt.answers[c] == [*spoken, prompt.end])
            assert clusters[row, place] == chosen
            assert scores[row, place] == pytest.approx(total, abs=1e-3)
            left.remove(chosen)


def test_both_implementations_keep_the_protocol(start: Any, prompt: Prompt, tokenizer: Any) -> None:
    context, excluded = contexts(1, 2)
    here: LanguageModel = InProcess(policy(make_tiny(), prompt, "causal"), tokenizer)
    there: LanguageModel = Server(start(), "tiny", prompt, NAMES)
    for model in (here, there):
        clusters, scores = model.best(context, len(NAMES), excluded)
        left = (~excluded).sum(1)
        for row in range(len(context)):
            answered = clusters[row, : left[row]]
            assert sorted(answered.tolist()) == np.flatnonzero(~excluded[row]).tolist()
            assert (clusters[row, left[row] :] == -1).all()
        assert clusters.dtype == np.int32
        assert scores.dtype == np.float32
    said = [here.freely(context), there.freely(context)]
    assert [text.split("\n")[0].strip() for text in said[0]] == said[1]


def test_a_busy_server_is_asked_again(start: Any, prompt: Prompt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "WAIT", 0.01)
    context, excluded = contexts(2, 1)
    clusters, _ = Server(start("busy"), "tiny", prompt, NAMES).best(context, 1, excluded)
    assert clusters[0, 0] >= 0


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("ignores-choice", "not among the choices"),
        ("garbage", "does not speak the OpenAI protocol"),
        ("refuses", "no such model"),
    ],
)
def test_a_server_that_is_none_of_ours_is_one_sentence(start: Any, prompt: Prompt, fault: str, said: str) -> None:
    context, excluded = contexts(3, 1)
    with pytest.raises(UserError, match=said):
        Server(start(fault), "tiny", prompt, NAMES).best(context, 1, excluded)


@pytest.mark.parametrize(
    ("url", "said"), [("http://127.0.0.1:1/v1", "does not answer"), ("localhost", "no address"), ("", "no address")]
)
def test_no_server_is_one_sentence(prompt: Prompt, monkeypatch: pytest.MonkeyPatch, url: str, said: str) -> None:
    monkeypatch.setattr(servers, "WAIT", 0.0)
    context, excluded = contexts(4, 1)
    with pytest.raises(UserError, match=said):
        Server(url, "tiny", prompt, NAMES).best(context, 1, excluded)
