"""Who may ask what, and how often: bearer tokens with scopes, and a limit a token that all workers share.

Tokens come from a file or from BYWAY_TOKENS, a line each: the token, a space, its scopes separated by commas. Only
their hashes are kept in memory, and they are written nowhere. It knows no route.
"""

import fcntl
import hashlib
import ipaddress
import mmap
import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from byway.base.errors import UserError

Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = ("read", "write", "admin")
SHORTEST = 16
"""Characters of a token: shorter ones can be guessed."""
VARIABLE = "BYWAY_TOKENS"


class Token(NamedTuple):
    """One token: its place in the table of limits, what it may do, and its name among hosts."""

    place: int
    scopes: frozenset[Scope]
    name: str = ""


def tokens(path: Path | None, environment: Mapping[str, str] = os.environ) -> dict[bytes, Token]:
    """The tokens by their hashes, from a file or else from the environment; empty where there is neither."""
    if path is not None:
        if not path.is_file():
            raise UserError(f"There is no file of tokens at {path}.")
        try:
            text, source = path.read_text("utf-8"), str(path)
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not UTF-8 text; write a token, a space and its scopes a line.") from error
    else:
        text, source = environment.get(VARIABLE, ""), VARIABLE
    found: dict[bytes, Token] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        asked = set(words[1].split(",")) if len(words) == 2 else set[str]()
        scopes: frozenset[Scope] = frozenset(scope for scope in SCOPES if scope in asked)
        # The sentence names the line, never the token.
        if not asked or len(scopes) != len(asked):
            raise UserError(f"{source}, line {number}: write a token, a space, and scopes of {', '.join(SCOPES)}.")
        if len(words[0]) < SHORTEST:
            raise UserError(f"{source}, line {number}: a token needs at least {SHORTEST} characters.")
        known = digest(words[0])
        found[known] = Token(len(found), scopes, known.hex()[:16])
    return found


def digest(token: str) -> bytes:
    """What a token is known by."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only be reached from this machine."""
    name = host.strip("[]")
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


ROUNDING = 1e-4
"""Seconds that a request may come too early: a clock's number is exact to 2.4e-7 today, and sums of it less."""


class Limits:
    """A steady rate and a burst for each of some tokens, in a file that all workers map.

    Each token has the time at which its allowance is full again; a request moves it on by 1 / rate, and is refused
    where that would lie more than burst / rate ahead.
    """

    def __init__(self, path: Path, count: int, rate: float, burst: int):
        self._rate, self._ahead = rate, burst / rate if rate else 0.0
        size = 8 * max(count, 1)
        with path.open("ab") as f:
            # Written, not only made longer: a mapped page for which the disk has no room ends the process.
            f.write(bytes(max(size - f.tell(), 0)))
        self._file = path.open("r+b")
        self._map = mmap.mmap(self._file.fileno(), size)

    def wait(self, place: int, now: float | None = None, take: bool = True) -> float:
        """Take one request from an allowance, or only look: 0, or the seconds to wait where there is none left."""
        if not self._rate:
            return 0.0
        now = time.time() if now is None else now
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            (full,) = struct.unpack_from("d", self._map, 8 * place)
            if full > now + self._ahead + ROUNDING:  # used up under other settings
                full = now + self._ahead
                struct.pack_into("d", self._map, 8 * place, full)
            after = max(full, now) + 1 / self._rate
            if after - now > self._ahead + ROUNDING:
                return after - now - self._ahead
            if take:
                struct.pack_into("d", self._map, 8 * place, after)
            return 0.0
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        self._map.close()
        self._file.close()
