"""Whether a worker can answer and will, and the figures of the moment that go with the counts.

Owns the probe of the history: it writes at most once a second, however often the question comes, since it comes
without a token.
"""

import asyncio
import platform
import time

from byway.base.artifact import VERSION
from byway.base.errors import UserError
from byway.serving import publish
from byway.serving.history import Unavailable
from byway.serving.messages import Health
from byway.serving.service import Service
from byway.serving.supervisor import Fleet

FRESH = 1.0
"""Seconds that the result of a probe counts."""
PATIENCE = 2.0
"""Seconds that a probe may take."""
TAKEN_UP = 5.0
"""Seconds after which a published bundle should have been taken up."""


class NotReady(Exception):
    """Requests should go elsewhere; why."""


class Readiness:
    """How one worker is, among the others."""

    def __init__(self, service: Service, fleet: Fleet):
        self._service, self._fleet = service, fleet
        self._probe: asyncio.Task[None] | None = None
        self._probed, self._differs_since = 0.0, 0.0

    async def health(self) -> Health:
        """How it is; raises NotReady where it cannot answer, or soon will not."""
        if self._fleet.draining:
            raise NotReady("The service is stopping.")
        if self._probe is None or (self._probe.done() and time.monotonic() - self._probed > FRESH):
            self._probed = time.monotonic()
            self._probe = asyncio.create_task(self._service.history.probe())
        try:
            async with asyncio.timeout(PATIENCE):
                await asyncio.shield(self._probe)
        except TimeoutError:
            raise NotReady(f"The history does not answer within {PATIENCE:g} seconds.") from None
        except Unavailable as error:
            raise NotReady(str(error)) from error
        fleet = self._fleet
        return Health("ready", self._service.live.name, fleet.ready, fleet.wanted, self._problems())

    def _problems(self) -> list[str]:
        found: list[str] = []
        fleet, live = self._fleet, self._service.live
        if fleet.ready < fleet.wanted:
            found.append(f"{fleet.ready} of {fleet.wanted} workers answer.")
        try:
            published = publish.current(self._service.workspace)
        except (UserError, OSError) as error:
            return [*found, str(error)]
        if published is None or published.bundle == live.name:
            self._differs_since = 0.0
            return found
        self._differs_since = self._differs_since or time.monotonic()
        if time.monotonic() - self._differs_since > TAKEN_UP:
            found.append(f"Bundle {published.bundle} is published and could not be taken up.")
        return found

    def facts(self) -> list[tuple[str, str, dict[str, str], float]]:
        """Name, help, labels and value of what is so at the moment."""
        fleet, live = self._fleet, self._service.live
        build = {"version": VERSION, "python": platform.python_version()}
        found = [
            ("byway_build_info", "The version that runs; always 1.", build, 1.0),
            ("byway_bundle_info", "The bundle that is served; always 1.", {"bundle": live.name}, 1.0),
            ("byway_bundle_loaded_timestamp_seconds", "When the bundle was taken up.", {}, live.since),
            ("byway_bundle_items", "Items of the bundle.", {}, float(len(live.bundle.ids))),
            (
                "byway_bundle_clusters",
                "Clusters of the planning level.",
                {},
                float(len(live.bundle.manifest.names)),
            ),
            ("byway_workers", "Workers that answer.", {}, float(fleet.ready)),
            ("byway_workers_wanted", "Workers that should answer.", {}, float(fleet.wanted)),
            ("byway_worker_restarts_total", "Workers that were started again.", {}, float(fleet.restarts)),
        ]
        said = "Bytes of the history's files, journals included."
        folder = self._service.workspace / "serving"
        for path in sorted(folder.glob("*.db*")):
            try:
                found.append(("byway_store_size_bytes", said, {"file": path.name}, float(path.stat().st_size)))
            except FileNotFoundError:
                continue  # a journal that was just put away
        return found
