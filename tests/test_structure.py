"""What the code promises of its own shape: no import circles, few positional arguments, no stage by its name."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from byway.workflow import stages

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
MODULES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((SOURCE / "byway").rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in MODULES.items()}
POSITIONAL = 6


def imports(tree: ast.Module) -> set[str]:
    """Modules of the package that a module imports, in functions and for types too."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            each = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in MODULES else node.module for name in each}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & MODULES.keys()


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Sets of modules that import one another, by Tarjan's strongly connected components."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in graph[name]:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            part = set[str]()
            while name not in part:
                part.add(stack.pop())
            if len(part) > 1:
                found.append(part)

    for name in graph:
        if name not in index:
            visit(name)
    return found


def test_a_circle_would_be_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [{"a", "b", "c"}]


def test_no_modules_import_one_another() -> None:
    graph = {name: imports(tree) - {name} for name, tree in TREES.items()}
    # The package itself is the door to what lies in it.
    graph["byway"] = set()
    assert circles(graph) == []


def test_no_function_has_more_positional_arguments_than_a_reader_can_hold() -> None:
    many: list[str] = []
    for name, tree in TREES.items():
        # A gradient's forward is called by the library, in its own way.
        gradients = {
            id(method)
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef) and any("Function" in ast.unparse(base) for base in node.bases)
            for method in node.body
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or id(node) in gradients:
                continue
            own = [a.arg for a in (*node.args.posonlyargs, *node.args.args) if a.arg not in ("self", "cls")]
            many += [f"{name}.{node.name}: {len(own)}"] * (len(own) > POSITIONAL)
    assert many == []


def test_nothing_branches_on_the_name_of_a_stage() -> None:
    names = {stage.name for stage in stages.STAGES}
    branches: list[str] = []
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Compare) and ".name" in ast.unparse(node):
                said = {c.value for c in ast.walk(node) if isinstance(c, ast.Constant)}
                branches += [f"{name}: {ast.unparse(node)}"] * bool(said & names)
    assert branches == []


def test_no_stage_is_found_by_a_string() -> None:
    assert not [name for name, tree in TREES.items() if "import_module(stage" in ast.unparse(tree)]
    for stage in stages.STAGES:
        assert inspect.getmodule(stage.build) is stages


@pytest.mark.parametrize("name", sorted(MODULES))
def test_modules_are_of_a_size_that_can_be_read(name: str) -> None:
    lines = len(MODULES[name].read_text("utf-8").splitlines())
    assert lines <= LONG.get(name, 400), f"{name} has {lines} lines: part it, or say in LONG why it is one"


LONG = {
    "byway.base.config": 700,  # every setting on one page
    "byway.cli": 475,  # every verb on one page
    "byway.workflow.stages": 560,  # every stage on one page
}
"""Modules that may be longer."""


def references(tree: ast.AST) -> Iterator[str]:
    """Names that are read, called, imported or stand alone in a string (as a type, or what is patched)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r"\w+", node.value) if " " not in node.value else ()


def defined(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Functions, classes, and the methods of those without a base: of the others a library may call them."""
    for node in tree.body:
        inner = node.body if isinstance(node, ast.ClassDef) and not node.bases else []
        for one in (node, *inner):
            if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield one


def test_every_function_class_and_method_is_used_outside_of_tests() -> None:
    benchmarks = [ast.parse(path.read_text("utf-8")) for path in sorted((ROOT / "benchmarks").glob("*.py"))]
    used = {name for tree in (*TREES.values(), *benchmarks) for name in references(tree)}
    docs = "\n".join(path.read_text("utf-8") for path in sorted((ROOT / "docs").glob("*.md")))
    used |= set(re.findall(r"\w+", docs))
    unused = [
        f"{module}.{node.name}"
        for module, tree in TREES.items()
        for node in defined(tree)
        if node.name not in used and not node.decorator_list and not node.name.startswith("__")
    ]
    assert unused == []
