"""maxSurge and maxUnavailable: how far a rolling update may go above and below the wanted size."""

from __future__ import annotations

from k3s.api.object import Object


def share(value: int | str, of: int, *, up: bool) -> int:
    """A count, or a percentage of `of` rounded up or down."""
    if isinstance(value, int):
        return value
    portion = int(value.removesuffix("%")) * of
    return -(-portion // 100) if up else portion // 100


def bounds(deployment: Object) -> tuple[int, int]:
    """maxSurge and maxUnavailable as counts; one of them is at least 1 for a rolling update."""
    strategy, replicas = deployment["spec"].get("strategy", {}), int(deployment["spec"].get("replicas", 1))
    if strategy.get("type") == "Recreate":
        return 0, 0
    rolling = strategy.get("rollingUpdate") or {}
    surge = share(rolling.get("maxSurge", "25%"), replicas, up=True)
    unavailable = share(rolling.get("maxUnavailable", "25%"), replicas, up=False)
    if not surge and not unavailable:
        unavailable = 1
    return surge, min(unavailable, replicas)
