"""What goes wrong between the parts: slow, refused and lost requests, late and broken watches.

The weather is one for the whole cluster and can change; chance comes from the seed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from k3s.api.errors import ApiError, OutcomeUnknown, ServiceUnavailable, TooManyRequests
from k3s.base.entropy import Entropy
from k3s.client.transport import Request, Response, Transport, WatchEvent

_SAFE = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Weather:
    """Seconds, and shares between 0 and 1. `lag_s` is each way of a request, `watch_lag_s` the most for an event,
    `write_s` and `read_s` the most that the datastore takes."""

    lag_s: tuple[float, float] = (0.0005, 0.025)
    watch_lag_s: float = 0.2
    dropped: float = 0.03
    lost: float = 0.03
    refused: float = 0.05
    write_s: float = 0.005
    read_s: float = 1.0


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
