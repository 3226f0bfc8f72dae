"""What hosts share over the Redis or Valkey server of their history: allowances, and which bundle is served.

Owns the keys `byway:allowance:…`, `byway:published` and `byway:bundle:…`. A bundle is carried over in pieces,
checked by its record where it arrives, and taken up as if it had been published there. What is said of people is
the business of `valkey`. It knows no request.
"""

import os
import shutil
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from byway.base import artifact, config
from byway.base.errors import UserError
from byway.serving import publish
from byway.serving.publish import Current, Tell
from byway.serving.security import ROUNDING

PUBLISHED, BUNDLE = "byway:published", "byway:bundle:"
PIECE = 4 << 20
"""Bytes of a file that are carried at once."""
PATIENCE = 0.2
"""Seconds that a request waits for the server to say whether its token has an allowance left."""
AGAIN = 1.0
"""Seconds for which it is not asked after it did not answer: the allowance of this host counts meanwhile."""

# KEYS: the time at which the allowance is full again. ARGV: requests a second, seconds ahead, rounding.
TAKE = """
local time = redis.call('TIME')
local now, rate, ahead = time[1] + time[2] / 1000000, tonumber(ARGV[1]), tonumber(ARGV[2])
local full = math.min(tonumber(redis.call('GET', KEYS[1]) or '0'), now + ahead)
local after = math.max(full, now) + 1 / rate
if after - now > ahead + ARGV[3] then return tostring(after - now - ahead) end
redis.call('SET', KEYS[1], string.format('%.17g', after), 'PX', math.ceil((after - now) * 1000) + 1)
return '0'
"""


class Allowances:
    """A steady rate and a burst for each token, over all hosts: `security.Limits` on the server, by its clock."""

    def __init__(self, url: str, rate: float, burst: int):
        """Without a `url` there is one host."""
        self._rate, self._ahead, self._silent = rate if url else 0.0, burst / rate if rate else 0.0, 0.0
        self._server: Any = None
        if not self._rate:
            return
        import redis.asyncio

        pool = redis.asyncio.BlockingConnectionPool.from_url(
            url, max_connections=16, timeout=PATIENCE, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE
        )
        self._server = redis.asyncio.Redis(connection_pool=pool)
        self._take = self._server.register_script(TAKE)

    async def wait(self, name: str) -> float:
        """Take one request from the allowance of a token: 0, or the seconds to wait where there is none left.

        0 too where the server does not answer: who asks is not refused for that.
        """
        if not self._rate or time.monotonic() < self._silent:
            return 0.0
        from redis.exceptions import RedisError

        try:
            found = await self._take(keys=[f"byway:allowance:{name}"], args=[self._rate, self._ahead, ROUNDING])
        except (RedisError, TimeoutError):
            self._silent = time.monotonic() + AGAIN
            return 0.0
        return float(found)

    async def close(self) -> None:
        if self._server is not None:
            await self._server.aclose(close_connection_pool=True)


def shared(settings: config.Serving) -> bool:
    """Whether what is published is published for all hosts. UserError where there is no server for it."""
    if settings.publication == "files":
        return False
    if not settings.history:
        raise UserError('serving.publication = "server" needs the address of one in serving.history.')
    return True


def telling(settings: config.Serving) -> Tell | None:
    """How other hosts are told what is published; None where they are not."""
    return partial(announce, settings) if shared(settings) else None


def announce(settings: config.Serving, home: Path, now: Current) -> None:
    """Have all hosts serve what is under `home`. UserError where the server does not take it."""
    with _server(settings, "did not take the bundle ({}): nothing is published") as server:
        _carry_over(server, home / now.bundle)
        server.set(PUBLISHED, msgspec.json.encode(now))
        kept = {f"{BUNDLE}{name}" for name in (now.bundle, *now.before)}
        for key in server.scan_iter(f"{BUNDLE}*"):
            if key.decode() not in kept:
                server.unlink(key)


def _carry_over(server: Any, folder: Path) -> None:
    key = f"{BUNDLE}{folder.name}"
    if server.hexists(key, "files"):
        return
    sizes: dict[str, int] = {}
    for path in sorted(folder.iterdir()):
        sizes[path.name] = path.stat().st_size
        with path.open("rb") as file:
            for number in range(-(-sizes[path.name] // PIECE)):
                server.hset(key, f"{path.name}:{number}", file.read(PIECE))
    server.hset(key, "files", msgspec.json.encode(sizes))  # last: now it is whole


def take(workspace: Path, settings: config.Serving) -> bool:
    """Have this host serve what was announced, where it does not yet; whether that changed.

    Raises UserError where what is carried over is not whole, or the server does not answer.
    """
    home = workspace / publish.FOLDER
    with ExitStack() as held:
        server = held.enter_context(_server(settings, "does not answer ({})"))
        said = server.get(PUBLISHED)
        if said is None:
            return False
        wanted, now = msgspec.json.decode(said, type=Current), publish.current(workspace)
        if now is not None and now.bundle == wanted.bundle:
            return False
        try:
            held.enter_context(artifact.locked(home))
        except UserError:
            return False  # another process of this host does this, or publishes
        if not (home / wanted.bundle).is_dir():
            _fetch(server, home, wanted.bundle)
        publish.settle(home, Current(wanted.bundle, [b for b in wanted.before if (home / b).is_dir()]))
    return True


def _fetch(server: Any, home: Path, name: str) -> None:
    """Write the files of a bundle, and check that they are those of its record."""
    key, part = f"{BUNDLE}{name}", home / f"{name}.part"
    whole = server.hget(key, "files")
    sizes = msgspec.json.decode(whole or b"{}", type=dict[str, int])
    if not sizes or not publish.is_name(name) or any(Path(file).name != file for file in sizes):
        raise UserError(f"Bundle {name} is announced and not on the server; publish it again.")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    for file, size in sizes.items():
        with (part / file).open("wb") as out:
            for number in range(-(-size // PIECE)):
                out.write(server.hget(key, f"{file}:{number}") or b"")
    record = artifact.read_record(part)
    if record is None or record.digest[:16] != name or publish.unfit(part, record):
        shutil.rmtree(part)
        raise UserError(f"Bundle {name} came over damaged; publish it again.")
    os.replace(part, home / name)


@contextmanager
def _server(settings: config.Serving, fault: str) -> Generator[Any]:
    """A connection; UserError with `fault`, and the kind of it, where the server fails."""
    import redis

    server: Any = redis.Redis.from_url(settings.history, socket_timeout=30, socket_connect_timeout=5)
    try:
        yield server
    except redis.RedisError as error:
        raise UserError(f"The server of serving.history {fault.format(type(error).__name__)}.") from error
    except msgspec.DecodeError as error:
        raise UserError(f"{PUBLISHED} on the server is damaged ({error}); publish again.") from error
    finally:
        server.close()
