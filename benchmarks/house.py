"""The code counted: modules, lines, settings, import circles, argument lists, unused functions, words of docs.

    python benchmarks/house.py [--root CHECKOUT]

`tests/test_structure.py` has what is counted as a circle; another checkout, also an older one, is counted alike.
"""

import argparse
import ast
import json
import re
import sys
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parents[1]
sys.path.insert(0, str(HERE))


def count(root: Path) -> dict[str, int]:
    """The counts of one checkout."""
    from tests.test_structure import circles

    source = root / "src"
    modules = {
        ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted((source / "byway").rglob("*.py"))
    }
    trees = {name: ast.parse(path.read_text("utf-8")) for name, path in modules.items()}
    graph: dict[str, set[str]] = {}
    for name, tree in trees.items():
        found: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                each = [f"{node.module}.{alias.name}" for alias in node.names]
                found |= {one if one in modules else node.module for one in each}
        graph[name] = (found & modules.keys()) - {name}
    graph["byway"] = set()
    nodes = [node for tree in trees.values() for node in ast.walk(tree)]
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    own = [
        [a.arg for a in (*f.args.posonlyargs, *f.args.args) if a.arg not in ("self", "cls", "ctx")]
        for f in functions
    ]
    compared = [ast.unparse(node) for node in nodes if isinstance(node, ast.Compare)]
    (settings,) = (tree for name, tree in trees.items() if name.endswith(".config"))
    sections = [node for node in settings.body if isinstance(node, ast.ClassDef) and node.name != "Config"]
    called = [*modules.values(), *root.glob("benchmarks/*.py")]
    named = Counter(re.findall(r"[^\W\d]\w*", " ".join(path.read_text("utf-8") for path in called)))
    called_by_a_base = {f for node in nodes if isinstance(node, ast.ClassDef) and node.bases for f in node.body} | {
        f for f in functions if f.name.startswith("__")
    }
    pages = [root / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")] + sorted(
        root.glob("docs/*.md")
    )
    return {
        "modules": sum(path.name != "__init__.py" for path in modules.values()),
        "lines": sum(len(path.read_text("utf-8").splitlines()) for path in modules.values()),
        "settings": sum(isinstance(field, ast.AnnAssign) for section in sections for field in section.body),
        "import circles": len(circles(graph)),
        "comparisons with a stage's name": sum("stage" in c and ".name" in c and "'" in c for c in compared),
        "functions with more than six positional arguments": sum(len(names) > 6 for names in own),
        "functions that tests alone call": sum(named[f.name] == 1 and f not in called_by_a_base for f in functions),
        "words of documentation": sum(
            any(letter.isalnum() for letter in word) for page in pages for word in page.read_text("utf-8").split()
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=HERE)
    print(json.dumps(count(parser.parse_args().root), indent=2))


if __name__ == "__main__":
    main()
