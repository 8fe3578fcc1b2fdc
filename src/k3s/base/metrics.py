"""Counters, gauges and histograms, and the text in which /metrics tells them (the Prometheus exposition format)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Labels = tuple[str, ...]
M = TypeVar("M", bound="Counter | Gauge | Histogram")

# Seconds, as the API server's request durations are told.
DURATIONS = (0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60)


class Registry:
    """All metrics of one process, in the order in which they were made."""

    def __init__(self) -> None:
        self._metrics: list[Counter | Gauge | Histogram] = []

    def counter(self, name: str, help: str, labels: Sequence[str] = ()) -> Counter:
        """A number that only grows, for each set of label values."""
        return self._add(Counter(name, help, tuple(labels)))

    def gauge(self, name: str, help: str, labels: Sequence[str] = (), read: Callable[[], float] | None = None) -> Gauge:
        """A number that goes up and down; with `read`, asked for when the metrics are."""
        return self._add(Gauge(name, help, tuple(labels), read))

    def histogram(
        self, name: str, help: str, labels: Sequence[str] = (), buckets: Sequence[float] = DURATIONS
    ) -> Histogram:
        """How often a value fell into each bucket; `buckets` are upper bounds."""
        return self._add(Histogram(name, help, tuple(labels), tuple(buckets)))

    def _add(self, metric: M) -> M:
        self._metrics.append(metric)
        return metric

    def text(self) -> str:
        """All metrics in the exposition format."""
        return "".join(line + "\n" for metric in self._metrics for line in metric.lines())


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _labels(names: Labels, values: Labels, more: str = "") -> str:
    parts = [f'{n}="{_escape(v)}"' for n, v in zip(names, values, strict=True)]
    if more:
        parts.append(more)
    return "{" + ",".join(parts) + "}" if parts else ""


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


class Counter:
    """A number that only grows."""

    def __init__(self, name: str, help: str, labels: Labels) -> None:
        self.name, self.help, self.labels = name, help, labels
        self.values: dict[Labels, float] = {} if labels else {(): 0}

    def add(self, *labels: str, by: float = 1) -> None:
        """Adds `by` to the number with these label values."""
        self.values[labels] = self.values.get(labels, 0) + by

    def lines(self) -> Iterator[str]:
        """The exposition of this metric."""
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} counter"
        for labels, value in self.values.items():
            yield f"{self.name}{_labels(self.labels, labels)} {_number(value)}"


class Gauge:
    """A number that goes up and down."""

    def __init__(self, name: str, help: str, labels: Labels, read: Callable[[], float] | None) -> None:
        self.name, self.help, self.labels, self._read = name, help, labels, read
        self.values: dict[Labels, float] = {}

    def set(self, value: float, *labels: str) -> None:
        """Sets the number with these label values."""
        self.values[labels] = value

    def add(self, by: float, *labels: str) -> None:
        """Adds `by`, which may be negative."""
        self.values[labels] = self.values.get(labels, 0) + by

    def lines(self) -> Iterator[str]:
        """The exposition of this metric."""
        if self._read is not None:
            self.values[()] = self._read()
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} gauge"
        for labels, value in self.values.items():
            yield f"{self.name}{_labels(self.labels, labels)} {_number(value)}"


class Histogram:
    """Counts of values by bucket, with their sum."""

    def __init__(self, name: str, help: str, labels: Labels, buckets: tuple[float, ...]) -> None:
        self.name, self.help, self.labels, self.buckets = name, help, labels, buckets
        self.counts: dict[Labels, list[int]] = {}
        self.sums: dict[Labels, float] = {}

    def observe(self, value: float, *labels: str) -> None:
        """Counts one value."""
        counts = self.counts.get(labels)
        if counts is None:
            counts = self.counts[labels] = [0] * (len(self.buckets) + 1)
            self.sums[labels] = 0.0
        counts[bisect_left(self.buckets, value)] += 1
        self.sums[labels] += value

    def lines(self) -> Iterator[str]:
        """The exposition of this metric."""
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} histogram"
        for labels, counts in self.counts.items():
            total = 0
            for bound, count in zip((*map(_number, self.buckets), "+Inf"), counts, strict=True):
                total += count
                quoted = f'le="{bound}"'
                yield f"{self.name}_bucket{_labels(self.labels, labels, quoted)} {total}"
            yield f"{self.name}_sum{_labels(self.labels, labels)} {_number(self.sums[labels])}"
            yield f"{self.name}_count{_labels(self.labels, labels)} {total}"
