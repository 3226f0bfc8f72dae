"""Who is known right now: the tokens as their file has them, sessions of browsers, and a limit on wrong tokens.

A line that is taken from the file stops working within a second; one that is added works as soon. A file that
cannot be read, or that has a wrong line, changes nothing, and that is logged: nobody is locked out by a slip of the
hand, and nobody let in by an emptied file. It knows no route.
"""

import base64
import hashlib
import hmac
import ipaddress
import os
import secrets
import time
from pathlib import Path

import structlog

from byway.base.errors import UserError
from byway.serving import security
from byway.serving.security import Limits, Token

LOOK = 1.0
"""Seconds between two looks at the file of tokens."""
HOURS = 12
"""How long a browser stays signed in."""
WRONG_RATE, WRONG_BURST = 1.0, 50
"""Wrong tokens that one address may send: a second, and at once."""
PLACES = 4096
"""Addresses are told apart by a hash of so many values."""

log = structlog.get_logger()


class Keyring:
    """The known tokens by their hashes."""

    def __init__(self, known: dict[bytes, Token], path: Path | None = None):
        self._known, self._path = known, path
        self.open = not known
        """Whether there are no tokens at all, so that everything is allowed: settled at the start."""
        self._seen = _stamp(path)
        self._at = time.monotonic()

    @classmethod
    def of(cls, path: Path | None) -> "Keyring":
        """The tokens of a file, which is watched, or else those of the environment."""
        return cls(security.tokens(path), path)

    def known(self) -> dict[bytes, Token]:
        """The tokens as they stand now, at most `LOOK` seconds old."""
        at = time.monotonic()
        if self._path is None or at - self._at < LOOK:
            return self._known
        before, self._at, self._seen = self._seen, at, _stamp(self._path)
        if self._seen is not None and self._seen == before:
            return self._known
        try:
            found = security.tokens(self._path)
        except (UserError, OSError) as error:
            log.error("tokens not read; those from before still count", reason=str(error))
        else:
            if found.keys() != self._known.keys():
                log.info("tokens read", tokens=len(found))
            self._known = found
        return self._known


def _stamp(path: Path | None) -> tuple[int, ...] | None:
    """What changes when a file does; None where it cannot be told, or is too young to tell the next change."""
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    if abs(time.time_ns() - found.st_mtime_ns) < 2_000_000_000:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


class Sessions:
    """What a browser keeps instead of the token: of no use after some hours, or without the token's line.

    The key lies in the folder of the service, for its owner alone; workers share it.
    """

    def __init__(self, folder: Path):
        self._key = _key(folder / "sessions.key")

    def make(self, token: str, now: float | None = None) -> str:
        """A value for the cookie of who has shown this token."""
        ends = int((time.time() if now is None else now) + 3600 * HOURS)
        head = ends.to_bytes(8, "big") + secrets.token_bytes(8)
        return base64.urlsafe_b64encode(head + self._mac(head, security.digest(token))).decode()

    def find(self, value: str, known: dict[bytes, Token], now: float | None = None) -> Token | None:
        """The token that a session stands for, where that is still known and the session has not ended."""
        try:
            raw = base64.urlsafe_b64decode(value.encode("ascii"))
        except (ValueError, UnicodeEncodeError):
            return None
        head, mac = raw[:16], raw[16:]
        if len(mac) != 32 or int.from_bytes(head[:8], "big") < (time.time() if now is None else now):
            return None
        return next((t for digest, t in known.items() if hmac.compare_digest(mac, self._mac(head, digest))), None)

    def place(self, address: str) -> int:
        """Where the wrong tokens of an address are counted; of IPv6, those of its whole network (/64)."""
        try:
            found = ipaddress.ip_address(address.partition("%")[0])
            packed = found.packed if found.version == 4 else found.packed[:8]
        except ValueError:
            packed = address.encode("utf-8", "replace")
        return int.from_bytes(hashlib.blake2b(packed, key=self._key, digest_size=4).digest()) % PLACES

    def _mac(self, head: bytes, digest: bytes) -> bytes:
        return hmac.digest(self._key, head + digest, "sha256")


class Wrong(Limits):
    """An allowance of wrong tokens for each place."""

    def __init__(self, folder: Path):
        super().__init__(folder / "wrong.bin", PLACES, WRONG_RATE, WRONG_BURST)


def _key(path: Path) -> bytes:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        made = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(made, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as f:
            f.write(secrets.token_bytes(32))
        try:
            os.link(made, path)  # of several workers one makes it
        except FileExistsError:
            pass
        finally:
            made.unlink()
    return path.read_bytes()
