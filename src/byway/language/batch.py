"""Questions and answers as files of the hosts' batch services.

A batch costs about half of the same requests one by one. Owns the three formats: OpenAI's, which many hosts and
vLLM's `run-batch` take too, Anthropic's message batches, and Gemini's. Results come in any order, in parts, and
with errors among them; what has no answer stays unasked and is in the next files.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from byway.base import config
from byway.base.artifact import write_atomic
from byway.base.errors import UserError
from byway.language import server
from byway.language.answers import Kept
from byway.language.questions import Question, Questions
from byway.language.server import Said, Usage

REQUESTS, BYTES = 40_000, 150 << 20
"""Of a file at the most: the strictest of the hosts takes 50,000 and 200 MB."""
LINE = 1 << 20
"""Bytes of a line of results; an answer is a few hundred."""


class Result(NamedTuple):
    """A line of a file of results."""

    identity: str
    said: str
    usage: Usage
    error: str = ""
    """Why there is no answer."""


def write(folder: Path, asked: Questions, rows: NDArray[np.integer], settings: config.Answers) -> list[Path]:
    """Write the requests of some questions into `folder`, in as many files as they need; earlier ones go."""
    if settings.protocol != "chat":
        raise UserError('language_model.answers = "batch" asks by chat: set answers.protocol = "chat".')
    for old in folder.glob("requests-*.jsonl"):
        old.unlink()
    files: list[Path] = []
    lines: list[bytes] = []
    size = 0

    def close() -> None:
        nonlocal size
        files.append(folder / f"requests-{len(files) + 1:03d}.jsonl")
        write_atomic(files[-1], b"".join(lines))
        lines.clear()
        size = 0

    for row in rows.tolist():
        line = json.dumps(_request(f"{folder.name}-{row}", asked[row], settings)).encode() + b"\n"
        if lines and (len(lines) >= REQUESTS or size + len(line) > BYTES):
            close()
        lines.append(line)
        size += len(line)
    close()
    return files


def _request(identity: str, question: Question, settings: config.Answers) -> dict[str, Any]:
    """One line: the question in the host's own words."""
    if settings.format == "openai":
        body = server.chat(question, settings)
        return {"custom_id": identity, "method": "POST", "url": "/v1/chat/completions", "body": body}
    schema, limit = question.schema(), server.longest(question)
    if settings.format == "anthropic":
        # It takes no bounds on the length of a list, and its models no temperature; the question says how many.
        for bound in ("minItems", "maxItems"):
            del schema["properties"]["next"][bound]
        body = {
            "model": settings.model,
            "max_tokens": limit,
            "system": question.system,
            "messages": [{"role": "user", "content": question.user}],
            "output_config": {"format": {"type": "json_schema", "schema": schema}},
        }
        return {"custom_id": identity, "params": server.with_extra(body, settings)}
    request = {
        "system_instruction": {"parts": [{"text": question.system}]},
        "contents": [{"role": "user", "parts": [{"text": question.user}]}],
        "generation_config": server.with_extra(
            {
                "temperature": 0,
                "top_p": 1,
                "seed": 0,
                "max_output_tokens": limit,
                "response_mime_type": "application/json",
                "response_json_schema": schema,
            },
            settings,
        ),
    }
    return {"key": identity, "request": request}


def take(files: list[Path], kept: Kept, asked: Questions) -> dict[str, int]:
    """Take in results; returns how many lines were answers, errors, empty, or of other questions.

    Raises UserError for a file that is not there or whose lines are no results at all.
    """
    counts: Counter[str] = Counter()
    for file in files:
        said, before = list[Said](), counts.total()
        for result in _results(file):
            owner, _, row = result.identity.rpartition("-")
            # No row has ten digits; of thousands Python makes no number.
            if owner != kept.path.name or not row.isdecimal() or len(row) > 9 or int(row) >= len(asked):
                counts["of other questions"] += 1
            elif result.error:
                counts["errors"] += 1
            else:
                ranking = asked.ranking(int(row), result.said)
                counts["answers"] += 1
                result.usage.empty = int(ranking[0] < 0)
                said.append(Said(int(row), ranking, result.usage))
        if counts.total() == before:
            raise UserError(f"{file} holds no results of a batch: give the file that the host wrote.")
        kept.keep(said)
    empty = int((kept.ranking[:, 0] == -1).sum())
    return {**{name: counts[name] for name in ("answers", "errors", "of other questions")}, "empty": empty}


def _results(file: Path) -> Iterator[Result]:
    """The lines of a file that are results; others are passed over."""
    if not file.is_file():
        raise UserError(f"{file} is not there.")
    with file.open("rb") as lines:
        while line := lines.readline(LINE):
            try:
                found = _read(json.loads(line))
            except (ValueError, OverflowError, RecursionError, LookupError, TypeError, AttributeError):
                continue
            yield found


def _read(line: dict[str, Any]) -> Result:
    """What one line of any of the three formats says; an exception where it is none of them."""
    if "key" in line:
        return _of_gemini(line)
    if "result" in line:
        return _of_anthropic(line)
    identity, response = str(line["custom_id"]), line.get("response") or {}
    if line.get("error") or response.get("status_code", 200) != 200:
        return Result(identity, "", Usage(), str(line.get("error") or response.get("status_code")))
    message, used = response["body"]["choices"][0]["message"], response["body"].get("usage") or {}
    usage = _usage(used.get("prompt_tokens"), used.get("completion_tokens"), bool(message.get("refusal")))
    return Result(identity, str(message.get("content") or ""), usage)


def _usage(read: Any, written: Any, refused: bool) -> Usage:
    """Of one answer; hosts leave out numbers."""
    return Usage(1, int(read or 0), int(written or 0), int(refused))


def _of_anthropic(line: dict[str, Any]) -> Result:
    identity, result = str(line["custom_id"]), line["result"]
    if result["type"] != "succeeded":
        return Result(identity, "", Usage(), str(result["type"]))
    message, used = result["message"], result["message"].get("usage") or {}
    usage = _usage(used.get("input_tokens"), used.get("output_tokens"), message.get("stop_reason") == "refusal")
    return Result(identity, "".join(b.get("text", "") for b in message["content"] if b["type"] == "text"), usage)


def _of_gemini(line: dict[str, Any]) -> Result:
    identity, response = str(line["key"]), line.get("response")
    if not response:
        return Result(identity, "", Usage(), str(line.get("error") or line.get("status") or "no response"))
    used = response.get("usageMetadata") or response.get("usage_metadata") or {}
    read = used.get("promptTokenCount", used.get("prompt_token_count"))
    written = used.get("candidatesTokenCount", used.get("candidates_token_count"))
    candidates = response.get("candidates") or []
    usage = _usage(read, written, refused=not candidates)
    parts = ((candidates[0].get("content") or {}).get("parts") or []) if candidates else []
    return Result(identity, "".join(part.get("text", "") for part in parts if not part.get("thought")), usage)
