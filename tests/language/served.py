"""A server of the OpenAI protocol with a script instead of a model, on loopback, for tests.

Who answers is a function of the names that are legal; what goes wrong is in the address: /busy/v1 is busy at first,
/garbage/v1 speaks another protocol, and so on.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Say = Callable[[str, list[str]], str]
"""The text of an answer, from the question and the legal names."""


@contextmanager
def served(say: Say) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address without a path, and the bodies of all requests so far."""
    seen: list[dict[str, Any]] = []
    state = {"busy": 2, "cut": 2}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append({**body, "authorization": self.headers.get("Authorization")})
            fault, _, route = self.path.lstrip("/").rpartition("v1/")
            fault = fault.rstrip("/")
            if fault == "busy" and state["busy"]:
                state["busy"] -= 1
                self.reply(429, {"error": {"message": "slow down"}}, {"Retry-After": "0"})
            elif fault == "cut" and state["cut"]:
                state["cut"] -= 1
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{")
                self.close_connection = True
            elif fault == "refuses" or body["model"] != "m":
                self.reply(404, {"error": {"message": "there is no such model"}})
            elif fault == "garbage":
                self.reply(200, ["no", "completion"])
            elif fault == "empty":
                self.reply(200, {"choices": []})
            elif fault == "huge":
                self.reply(200, {"choices": [{"message": {"content": "x" * (5 << 20)}}]})
            elif fault == "moved":
                self.reply(307, {}, {"Location": "/v1/chat/completions"})
            elif route == "completions":
                choices = body.get("structured_outputs", {}).get("choice") or body.get("guided_choice") or []
                usage = {"prompt_tokens": 50, "completion_tokens": 5}
                self.reply(200, {"choices": [{"text": say(body["prompt"], choices)}], "usage": usage})
            else:
                schema = body["response_format"]["json_schema"]["schema"]
                legal = schema["properties"]["next"]["items"]["enum"]
                message: dict[str, Any] = {"content": say(body["messages"][1]["content"], legal)}
                if fault == "declines":
                    message = {"content": None, "refusal": "I would rather not."}
                usage = {"prompt_tokens": 100, "completion_tokens": 10}
                self.reply(200, {"choices": [{"message": message}], "usage": usage})

        def reply(self, status: int, value: object, headers: dict[str, str] | None = None) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            for name, text in (headers or {}).items():
                self.send_header(name, text)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
