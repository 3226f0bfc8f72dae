"""What a release holds: the wheel with its data; container files that speak of verbs and settings that exist."""

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import yaml

from byway.base import config
from byway.cli import app
from byway.serving import app as service

ROOT = Path(__file__).resolve().parents[1]


def test_the_wheel_holds_every_module_and_all_that_they_read(tmp_path: Path) -> None:
    """Built from a copy of what git knows: nothing of this checkout's own gets in."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = [name for name in listed.split("\0") if name.startswith("src/") or "/" not in name]
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "copy" / name).write_bytes((ROOT / name).read_bytes())
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "-w",
        str(tmp_path),
        str(tmp_path / "copy"),
    ]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("byway-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        entry = next(name for name in held if name.endswith("entry_points.txt"))
        assert "byway = byway.__main__:main" in archive.read(entry).decode()
    wanted = {
        path.relative_to(ROOT / "src").as_posix()
        for ending in ("*.py", "*.toml", "*.html", "*.css", "*.js", "*.svg", "py.typed")
        for path in (ROOT / "src" / "byway").rglob(ending)
    }
    assert wanted - held == set()
    assert not [name for name in held if name.startswith("tests")]


def test_the_container_serves_by_verbs_and_settings_that_there_are() -> None:
    text = (ROOT / "Dockerfile").read_text("utf-8")
    verb = json.loads(re.findall(r"^CMD (\[.*\])$", text, re.M)[-1])[0]
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
    command = compose["services"]["byway"]["command"]
    assert {verb, command[0]} <= set(app)
    config.load(ROOT / "none.toml", [command[command.index("--set") + 1]])
    routes = {path for handler in (service.healthz,) for path in handler.paths}
    assert {"/healthz"} <= routes
    assert "/healthz" in text
    extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text("utf-8"), re.M)
    assert set(re.findall(r"ARG EXTRAS=([\w,]+)", text)[0].split(",")) <= set(extras)
