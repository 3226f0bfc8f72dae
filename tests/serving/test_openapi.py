"""The schema says what every operation, parameter and field means, and its examples are answered."""

from collections.abc import Generator
from typing import Any

import httpx
import pytest

from byway.serving import openapi
from tests.serving import house, running

OPERATIONS = ("get", "post", "delete", "put", "patch")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Generator[httpx.Client]:
    workspace = tmp_path_factory.mktemp("w")
    house.published(workspace)
    with running.thread(workspace) as found:
        yield found


@pytest.fixture(scope="module")
def schema(client: httpx.Client) -> dict[str, Any]:
    return client.get("/schema/openapi.json").json()


def operations(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method} {path}": operation
        for path, found in schema["paths"].items()
        for method, operation in found.items()
        if method in OPERATIONS
    }


def test_everything_is_described(schema: dict[str, Any]) -> None:
    missing = [name for name, operation in operations(schema).items() if not operation.get("description")]
    for name, operation in operations(schema).items():
        missing += [f"{name} {p['name']}" for p in operation.get("parameters", []) if not p.get("description")]
        missing += [f"{name} {s}" for s, r in operation["responses"].items() if not r.get("description")]
    fields = set[str]()
    for name, one in schema["components"]["schemas"].items():
        missing += [] if one.get("description") else [name]
        missing += [f"{name}.{field}" for field, f in one["properties"].items() if not f.get("description")]
        fields |= one["properties"].keys()
    assert missing == []
    fields |= {p["name"] for operation in operations(schema).values() for p in operation.get("parameters", [])}
    assert openapi.FIELDS.keys() <= fields, "what is described is there"
    assert openapi.SCHEMAS.keys() == schema["components"]["schemas"].keys()


def test_every_body_has_an_example_that_is_answered(client: httpx.Client, schema: dict[str, Any]) -> None:
    tried = 0
    for name, operation in operations(schema).items():
        if "requestBody" in operation:
            example = operation["requestBody"]["content"]["application/json"]["example"]
            reply = client.post(name.split()[1], json=example)
            assert reply.is_success, (name, reply.text)
            tried += 1
    assert tried == len(openapi.EXAMPLES)
