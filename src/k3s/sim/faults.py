"""What goes wrong between the parts: slow, refused and lost requests, late and broken watches, a store that takes time.

The weather is one for the whole cluster and can change; chance comes from the seed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from k3s.api.errors import ApiError, OutcomeUnknown, ServiceUnavailable, TooManyRequests
from k3s.base.entropy import Entropy
from k3s.client.transport import Request, Response, Transport, WatchEvent
from k3s.store.interface import Entries, Entry, Events, Store, Subscriber, Unavailable

_SAFE = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Weather:
    """Seconds, and shares between 0 and 1. `lag_s` is each way of a request, `watch_lag_s` the most for an event."""

    lag_s: tuple[float, float] = (0.0005, 0.025)
    watch_lag_s: float = 0.2
    dropped: float = 0.03
    lost: float = 0.03
    refused: float = 0.05
    write_s: float = 0.005


STORM = Weather()
CALM = Weather(dropped=0.0, lost=0.0, refused=0.0)


class Sky:
    """The weather as it is now."""

    def __init__(self, entropy: Entropy, weather: Weather = STORM) -> None:
        self.weather = weather
        self.entropy = entropy

    def strikes(self, share: float) -> bool:
        """Whether a misfortune of this share happens now."""
        return share > 0 and self.entropy.fraction() < share

    async def lag(self) -> None:
        """Takes the time of one way of a request."""
        least, most = self.weather.lag_s
        await asyncio.sleep(least + (most - least) * self.entropy.fraction())


class FaultyTransport:
    """A Transport in bad weather. What it raises is what the transport over HTTPS raises."""

    def __init__(self, inner: Transport, sky: Sky, alive: Callable[[], bool] = lambda: True) -> None:
        self._inner = inner
        self._sky = sky
        self._alive = alive

    async def send(self, request: Request) -> Response:
        """Sends, perhaps late, perhaps not at all, perhaps without an answer."""
        sky = self._sky
        await sky.lag()
        self._check_alive()
        if sky.strikes(sky.weather.refused):
            if sky.strikes(0.5):
                raise TooManyRequests("the simulation refuses this request", retry_after_s=1)
            raise ServiceUnavailable("the simulation refuses this request")
        error: ApiError | OutcomeUnknown | None = None
        try:
            response = await self._inner.send(request)
        except (ApiError, OutcomeUnknown) as failure:
            error = failure
        await sky.lag()
        self._check_alive()
        if sky.strikes(sky.weather.lost):
            text = f"the simulation lost the answer to {request.method} {request.path}"
            raise ServiceUnavailable(text) if request.method in _SAFE else OutcomeUnknown(text)
        if error is not None:
            raise error
        return response

    async def watch(self, request: Request) -> AsyncIterator[WatchEvent]:
        """Events in order and late, those that come together late together; now and then the watch breaks."""
        sky, loop = self._sky, asyncio.get_running_loop()
        await sky.lag()
        self._check_alive()
        if sky.strikes(sky.weather.refused):
            raise ServiceUnavailable("the simulation refuses this watch")
        asked = loop.time()
        stream = self._inner.watch(request)
        try:
            async for event in stream:
                if loop.time() > asked:
                    await asyncio.sleep(sky.weather.watch_lag_s * sky.entropy.fraction())
                    self._check_alive()
                if sky.strikes(sky.weather.dropped):
                    raise ServiceUnavailable(f"the simulation broke the watch of {request.path}")
                yield event
                asked = loop.time()
        finally:
            await stream.aclose()  # type: ignore[attr-defined]

    async def close(self) -> None:
        """Closes what it wraps."""
        await self._inner.close()

    def _check_alive(self) -> None:
        if not self._alive():
            raise ServiceUnavailable("the process that sent this is gone")


class Session:
    """A Store as one process sees it: writes take time, and what the process had begun when it died never happens."""

    def __init__(self, inner: Store, sky: Sky) -> None:
        self._inner = inner
        self._sky = sky
        self.alive = True

    async def open(self) -> None:
        """Opens what it wraps."""
        await self._inner.open()

    async def close(self) -> None:
        """Ends this session; the store goes on for the next."""
        self.alive = False

    def revision(self) -> int:
        """The newest revision."""
        return self._inner.revision()

    def oldest(self) -> int:
        """The oldest revision that can be read."""
        return self._inner.oldest()

    def problem(self) -> str:
        """Why the last write could not be made."""
        return self._inner.problem()

    def subscribe(self, subscriber: Subscriber) -> None:
        """Hands each new event to `subscriber`."""
        self._inner.subscribe(subscriber)

    async def put(self, key: str, value: bytes, expected: int) -> int:
        """Writes a key. Raises KeyConflict, Unavailable."""
        await self._write_lag()
        revision = await self._inner.put(key, value, expected)
        await self._write_lag()
        return revision

    async def delete(self, key: str, expected: int) -> int:
        """Deletes a key. Raises KeyConflict, Unavailable."""
        await self._write_lag()
        revision = await self._inner.delete(key, expected)
        await self._write_lag()
        return revision

    async def get(self, key: str, revision: int = 0) -> Entry | None:
        """The key as of `revision`."""
        self._check()
        return await self._inner.get(key, revision)

    async def list(self, prefix: str, revision: int = 0, after: str = "", limit: int = 0) -> tuple[int, Entries]:
        """The entries with this prefix."""
        self._check()
        return await self._inner.list(prefix, revision, after, limit)

    async def events(self, prefix: str, after: int, limit: int = 0) -> Events:
        """The events after a revision."""
        self._check()
        return await self._inner.events(prefix, after, limit)

    async def compact(self, revision: int) -> None:
        """Forgets history before `revision`."""
        self._check()
        await self._inner.compact(revision)

    async def _write_lag(self) -> None:
        if self._sky.weather.write_s:
            await asyncio.sleep(self._sky.weather.write_s * self._sky.entropy.fraction() / 2)
        self._check()

    def _check(self) -> None:
        if not self.alive:
            raise Unavailable("Cannot use the datastore: this process is gone")
