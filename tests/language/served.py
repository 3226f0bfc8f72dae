"""A small real server of the OpenAI completions protocol with guided choice: a tiny model on loopback, for tests.

    python -m tests.language.served

Prints its port. Under /v1 it does what it should; under /ignores-choice/v1, /busy/v1, /garbage/v1 and /refuses/v1
it has the fault of that name. Greedy decoding, token by token, each among those with which a choice can still be
spelt.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

from byway.base import models
from tests.language.conftest import make_tiny


def greedy(model: Any, prompt: list[int], legal: list[list[int]] | None, longest: int) -> tuple[list[int], float]:
    """The greedy answer, without the end token, and its log-probability over the whole vocabulary."""
    spoken: list[int] = []
    total = 0.0
    for _ in range(longest):
        with torch.no_grad():
            log_p = model(torch.tensor([prompt + spoken])).logits[0, -1].float().log_softmax(-1)
        allowed = None if legal is None else sorted({a[len(spoken)] for a in legal if a[: len(spoken)] == spoken})
        token = int(log_p.argmax()) if allowed is None else allowed[int(log_p[allowed].argmax())]
        total += float(log_p[token])
        if token == 2:
            break
        spoken.append(token)
    return spoken, total


def main() -> None:
    torch.set_num_threads(1)
    model, tokenizer = make_tiny(), models.load_tokenizer("smollm2-135m")
    busy = [2]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            fault, _, route = self.path.lstrip("/").rpartition("v1/")
            fault = fault.rstrip("/")
            if route != "completions" or body["model"] != "tiny" or fault == "refuses":
                self.reply(404, {"error": {"message": "there is no such model"}})
            elif fault == "busy" and busy[0]:
                busy[0] -= 1
                self.reply(503, {"error": {"message": "loading"}})
            elif fault == "garbage":
                self.reply(200, ["no", "completion"])
            else:
                self.complete(body, fault)

        def complete(self, body: dict[str, Any], fault: str) -> None:
            choices = body.get("structured_outputs", {}).get("choice") or body.get("guided_choice")
            if fault == "ignores-choice":
                choices = None
            legal = choices and [[*tokenizer(c, add_special_tokens=False).input_ids, 2] for c in choices]
            spoken, total = greedy(model, body["prompt"], legal, body["max_tokens"])
            answer = {"text": tokenizer.decode(spoken), "index": 0, "finish_reason": "stop"}
            answer["logprobs"] = {"token_logprobs": [None, total]}
            self.reply(200, {"object": "text_completion", "choices": [answer]})

        def reply(self, status: int, value: object) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    sys.stdout.close()
    server.serve_forever()


if __name__ == "__main__":
    main()
