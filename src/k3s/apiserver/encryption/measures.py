"""What /metrics tells of encryption at rest; names and labels are upstream's (ids of keys and servers are hashed)."""

from __future__ import annotations

import functools
from collections.abc import Callable

from k3s.apiserver.encryption.kms import hashed
from k3s.base.metrics import Registry

_BUCKETS = tuple(0.0001 * 2**i for i in range(20))
# Ids of keys that are told; upstream keeps as many.
_IDS = 10


class Measures:
    """`server` is the name of this API server (`presence.name_of`); `now` gives seconds since 1970."""

    def __init__(self, metrics: Registry, server: str, now: Callable[[], float]) -> None:
        self._server = hashed(server)
        self._now = now
        self._hash = functools.lru_cache(_IDS)(hashed)
        name = "apiserver_envelope_encryption_"
        key = ["apiserver_id_hash", "key_id_hash", "provider_name", "transformation_type"]
        self._uses = metrics.counter(f"{name}key_id_hash_total", "Values by the key that sealed them.", key)
        self._used = metrics.gauge(f"{name}key_id_hash_last_timestamp_seconds", "When a key was used last.", key)
        self._told = metrics.gauge(
            f"{name}key_id_hash_status_last_timestamp_seconds", "When a KMS plugin told of a key last.", key[:3]
        )
        self._invalid = metrics.counter(
            f"{name}invalid_key_id_from_status_total",
            "Ids of keys that no plugin may have.",
            ["error", "provider_name"],
        )
        self._seeds = metrics.gauge(f"{name}dek_source_cache_size", "Seeds that are known.", ["provider_name"])
        self._calls = metrics.histogram(
            f"{name}kms_operations_latency_seconds",
            "How long KMS plugins took to answer.",
            ["grpc_status_code", "method_name", "provider_name"],
            _BUCKETS,
        )

    def used(self, direction: str, provider: str, key_id: str) -> None:
        """A value was sealed (`to_storage`) or unsealed (`from_storage`)."""
        labels = self._server, self._hash(key_id), provider, direction
        self._uses.add(*labels)
        self._used.set(self._now(), *labels)
        while len(self._used.values) > 2 * _IDS:
            oldest = min(self._used.values, key=self._used.values.__getitem__)
            del self._used.values[oldest], self._uses.values[oldest]

    def status(self, provider: str, key_id: str) -> None:
        """A plugin told which key it uses."""
        self._told.set(self._now(), self._server, self._hash(key_id), provider)
        while len(self._told.values) > _IDS:
            del self._told.values[min(self._told.values, key=self._told.values.__getitem__)]

    def invalid(self, provider: str, error: str) -> None:
        """A plugin told an id that cannot be one."""
        self._invalid.add(error, provider)

    def seeds(self, provider: str, count: int) -> None:
        """So many seeds are known."""
        self._seeds.set(count, provider)

    def call(self, provider: str, method: str, code: str, seconds: float) -> None:
        """A plugin was asked; `code` is the name of the gRPC status, such as NOT_FOUND."""
        told = code if code == "OK" else "".join(part.capitalize() for part in code.split("_"))
        self._calls.observe(seconds, told, method, provider)
