"""The history on a Redis or Valkey server, for services on several machines.

Owns the keys. Everything of a user lies under `byway:{user}`, so that a cluster keeps it in one place: a hash of
events by id, a sorted set of their ids by time, and a sorted set of answers. Keys expire when the last event in
them has. Whether an acknowledged event outlives the *server* is the server's configuration: where it keeps an
append-only file, this module waits until the event is in it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import redis.asyncio
from redis.exceptions import RedisError, ResponseError

from byway.serving.history import DAY, LATE, LIMIT, Answered, Event, Unavailable, hashed

SPARE = 15
"""Days beyond those that are kept after which an untouched key goes by itself; the exact day is `forget`'s."""

GONE = "byway:gone"
"""Hashes of the names of who was deleted, and when."""
WANTED, SCRUBBING = "byway:scrub", "byway:scrubbing"
"""How many deletions the server's files still hold; that they are being written anew, or were a moment ago."""
MINUTE = 60
"""Seconds, at least, between two rewritings of the server's files."""

# KEYS: hash of events, order of events. ARGV: seconds to keep, then id, time, body of each event.
# A member of the order carries a counter, so that equal times stay in order of arrival.
ADD = """
local new = {}
for i = 2, #ARGV, 3 do
  local fresh = redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 2])
  if fresh == 1 then
    local n = redis.call('HINCRBY', KEYS[3], 'n', 1)
    redis.call('ZADD', KEYS[2], ARGV[i + 1], string.format('%016d', n) .. ARGV[i])
  end
  new[#new + 1] = fresh
end
for i = 1, 3 do redis.call('EXPIRE', KEYS[i], ARGV[1]) end
return new
"""

# KEYS: hash, order. ARGV: after this time, at most so many. Latest first.
LATEST = """
local ids = redis.call('ZREVRANGEBYSCORE', KEYS[2], '+inf', '(' .. ARGV[1], 'LIMIT', 0, ARGV[2])
if #ids == 0 then return {} end
for i, id in ipairs(ids) do ids[i] = string.sub(id, 17) end
local found = {}
for i = 1, #ids, 1000 do  -- no more fit on Lua's stack at once than some thousands
  local some = redis.call('HMGET', KEYS[1], unpack(ids, i, math.min(i + 999, #ids)))
  for _, body in ipairs(some) do found[#found + 1] = body end
end
return found
"""

# KEYS: hash, order, counter, answers, confirmed. ARGV: before this time.
FORGET = """
local gone = 0
local ids = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. ARGV[1])
for _, id in ipairs(ids) do gone = gone + redis.call('HDEL', KEYS[1], string.sub(id, 17)) end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', '(' .. ARGV[1])
gone = gone + redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', '(' .. ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', '(' .. ARGV[1])
return gone
"""

# KEYS: hash, order, counter, answers, confirmed.
DELETE = """
local gone = redis.call('HLEN', KEYS[1]) + redis.call('ZCARD', KEYS[4])
redis.call('DEL', unpack(KEYS))
return gone
"""


class Valkey:
    """The store on a server. The methods are those of `stores.Files`, and said there."""

    def __init__(self, url: str, days: int, confirmed: bool = False):
        """`days` is how long what happened is kept; with `confirmed`, no other answers are read."""
        self._confirmed = confirmed
        self._seconds = (days + SPARE) * DAY // 1_000_000
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            url, max_connections=32, timeout=5, socket_timeout=5, socket_connect_timeout=5, retry_on_timeout=False
        )
        # Any: the stubs allow for replies of every kind of server and decoding.
        self._server: Any = redis.asyncio.Redis(connection_pool=pool)
        self._scripts = {
            name: self._server.register_script(text)
            for name, text in (("add", ADD), ("latest", LATEST), ("forget", FORGET), ("delete", DELETE))
        }
        self._kept: bool | None = None
        """Whether the server keeps an append-only file and can say when it is written."""

    async def add(self, events: list[Event]) -> list[bool]:
        """Store events; whether each is new. A batch of several users is stored user by user."""
        new: dict[int, bool] = {}
        by_user: dict[str, list[int]] = {}
        for i, event in enumerate(events):
            by_user.setdefault(event.user, []).append(i)
        with _answering():
            async with self._server.client() as one:
                await one.sadd("byway:users", *by_user)
                for user, places in by_user.items():
                    for some in (places[start : start + 1000] for start in range(0, len(places), 1000)):
                        values: list[Any] = [self._seconds]
                        for i in some:
                            values += [events[i].event.encode(), events[i].time, msgspec.json.encode(events[i])]
                        found = await self._scripts["add"](keys=_keys(user)[:3], args=values, client=one)
                        new |= {i: bool(fresh) for i, fresh in zip(some, found, strict=True)}
                await self._flush(one)
        return [new[i] for i in range(len(events))]

    async def of(self, user: str, since: int, limit: int = LIMIT) -> list[Event]:
        with _answering():
            found = await self._scripts["latest"](keys=_keys(user)[:2], args=[since, limit])
        return [msgspec.json.decode(body, type=Event) for body in reversed(found) if body is not None]

    async def expose(self, *answered: Answered) -> None:
        with _answering():
            some = await self._not_gone(answered)
            async with self._server.pipeline(transaction=False) as pipe:
                for each in some:
                    key = _keys(each.user)[3]
                    pipe.zadd(key, {msgspec.json.encode(each): each.time})
                    pipe.expire(key, self._seconds)
                    pipe.sadd("byway:users", each.user)
                await pipe.execute()
            # Who was deleted in between is deleted once more.
            left = await self._not_gone(some)
            for each in some:
                if each not in left:
                    await self._server.zrem(_keys(each.user)[3], msgspec.json.encode(each))

    async def _not_gone(self, answered: Sequence[Answered]) -> list[Answered]:
        """What is not from before a deletion of its user."""
        if not answered:
            return []
        gone = await self._server.zmscore(GONE, [hashed(a.user) for a in answered])
        return [a for a, at in zip(answered, gone, strict=True) if at is None or a.time > at]

    async def confirm(self, user: str, answer: str) -> None:
        key = _keys(user)[4]
        with _answering():
            async with self._server.pipeline(transaction=False) as pipe:
                pipe.zadd(key, {answer: time.time_ns() // 1000}, nx=True)
                pipe.expire(key, self._seconds)
                await pipe.execute()

    async def answers(self, user: str, since: int, limit: int = LIMIT) -> list[Answered]:
        with _answering():
            found = await self._server.zrevrangebyscore(_keys(user)[3], "+inf", f"({since}", start=0, num=limit)
            shown = await self._server.zrange(_keys(user)[4], 0, -1) if self._confirmed else []
        answers = [msgspec.json.decode(body, type=Answered) for body in reversed(found)]
        names = {name.decode() for name in shown}
        return [a for a in answers if a.answer in names] if self._confirmed else answers

    async def delete(self, user: str) -> int:
        with _answering():
            async with self._server.client() as one:
                await one.incr(WANTED)
                await one.zadd(GONE, {hashed(user): time.time_ns() // 1000})
                gone = await self._scripts["delete"](keys=_keys(user), args=[], client=one)
                await one.srem("byway:users", user)
                await one.incr(WANTED)
                await self._flush(one)
        return int(gone)

    async def scrub(self, at_once: bool = False) -> bool:
        """Have the server write its files anew where something was deleted; whether that was done.

        Its append-only file, if it keeps one, and its snapshot, if it makes any. Raises Unavailable where that was
        due and the server could not do it.
        """
        with _answering():
            wanted = await self._server.get(WANTED)
            if wanted is None and not at_once:
                return False
            if not at_once and not await self._server.set(SCRUBBING, 1, nx=True, ex=MINUTE):
                return False
            info = await self._server.info("persistence")
            if info.get("aof_enabled") == 1:
                await self._rewritten("bgrewriteaof", "aof_rewrite_in_progress", "aof_last_bgrewrite_status")
            if info.get("rdb_saves", 1) or (await self._server.config_get("save")).get("save"):
                await self._rewritten("bgsave", "rdb_bgsave_in_progress", "rdb_last_bgsave_status")
            if wanted is not None and await self._server.get(WANTED) == wanted:
                await self._server.delete(WANTED)
        return True

    async def _rewritten(self, command: str, going: str, status: str) -> None:
        """Have a file written, and wait for it."""
        for asked in (False, True):  # one that goes on already began too early
            while (info := await self._server.info("persistence"))[going] or info.get("aof_rewrite_scheduled"):
                await asyncio.sleep(0.1)
            if not asked:
                await self._server.execute_command(command)
        if info[status] != "ok":
            raise Unavailable(f"The server could not write its file anew ({command}).")

    async def forget(self, before: int) -> int:
        gone = 0
        with _answering():
            await self._server.zremrangebyscore(GONE, "-inf", time.time_ns() // 1000 - 2 * LATE)
            async for user in self.users():
                gone += int(await self._scripts["forget"](keys=_keys(user), args=[before]))
                if not await self._server.exists(*_keys(user)[1:2], _keys(user)[3]):
                    await self._server.srem("byway:users", user)
        return gone

    async def users(self, after: str = "") -> AsyncIterator[str]:
        with _answering():
            # In pieces: all at once would hold up the server.
            found = {user.decode() async for user in self._server.sscan_iter("byway:users", count=1000)}
        for user in sorted(user for user in found if user > after):
            yield user

    async def recent_users(self, limit: int) -> list[str]:
        """Some people of whom something is known: the server does not keep them by time."""
        with _answering():
            found = await self._server.srandmember("byway:users", limit)
        return sorted(user.decode() for user in found)

    async def ping(self) -> None:
        with _answering():
            await self._server.ping()

    async def probe(self) -> None:
        """Raises Unavailable where the server does not take a write."""
        with _answering():
            await self._server.set("byway:probe", 1, ex=60)

    async def close(self) -> None:
        await self._server.aclose(close_connection_pool=True)

    async def keeps(self) -> bool:
        """Whether the server writes an append-only file and can say when that is on its disk."""
        if self._kept is None:
            info = await self._server.info("persistence")
            self._kept = info.get("aof_enabled") == 1
        return bool(self._kept)

    async def _flush(self, one: Any) -> None:
        """Wait until what this very connection wrote is on the server's disk."""
        if await self.keeps():
            try:
                await one.execute_command("WAITAOF", 1, 0, 5000)
            except ResponseError:
                # Servers before 7.2 do not know the command; there `appendfsync always` does the same.
                self._kept = False


def _keys(user: str) -> list[str]:
    return [f"byway:{{{user}}}:{kind}" for kind in ("events", "order", "counter", "answers", "confirmed")]


@contextmanager
def _answering() -> Generator[None]:
    try:
        yield
    except RedisError as error:
        raise Unavailable(f"The history does not answer: {type(error).__name__}.") from error
