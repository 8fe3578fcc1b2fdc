"""`/status`, `/finalize`, `/approval` and other paths that read and write a part of the object itself."""

from __future__ import annotations

from collections.abc import Awaitable

from k3s.apiserver.call import Call
from k3s.apiserver.reads import Reads
from k3s.apiserver.results import Result
from k3s.apiserver.writes import Writes


class Part:
    """A path whose body is the whole object, and whose update changes the part that the kind's strategy says."""

    def __init__(self, reads: Reads, writes: Writes) -> None:
        self._reads = reads
        self._writes = writes

    def __call__(self, call: Call) -> Result | Awaitable[Result]:
        info = call.target.info
        if info.verb == "get":
            return self._reads.get(call.kind, call.namespace, info.name, call.target.query)
        if info.verb == "patch":
            return self._writes.patch(call)
        return self._writes.update(call)
