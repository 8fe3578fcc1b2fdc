"""The role of the server's own node: kubelets may not give it to themselves (NodeRestriction), so the server does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from k3s.api import object as objects
from k3s.api.errors import ApiError, NotFound, OutcomeUnknown
from k3s.api.object import Object
from k3s.client.client import Client
from k3s.client.informer import Informer

log = logging.getLogger(__name__)

CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
_RETRY_S = 1.0


class ControlPlaneRole:
    """Keeps the label of the control plane on the node `name`, also when the node registers anew."""

    def __init__(self, client: Client, nodes: Informer, name: str) -> None:
        self._client = client
        self._nodes = nodes
        self._name = name
        self._changed = asyncio.Event()
        nodes.subscribe(self._told)

    def _told(self, key: str, old: Object | None, new: Object | None) -> None:
        if key == self._name:
            self._changed.set()

    async def run(self, ready: Callable[[], None]) -> None:
        """Runs until cancelled; ready at once, because the node registers when the server is up."""
        self._changed.set()
        ready()
        while True:
            await self._changed.wait()
            self._changed.clear()
            node = self._nodes.get(self._name)
            if node is None or objects.labels(node).get(CONTROL_PLANE) == "true":
                continue
            try:
                await self._client.patch(
                    self._nodes.kind, "", self._name, {"metadata": {"labels": {CONTROL_PLANE: "true"}}}
                )
            except NotFound:
                log.debug("The node left before it was labelled", extra={"node": self._name})
            except (ApiError, OutcomeUnknown) as error:
                log.warning("Cannot label the server's node yet: %s", error, extra={"node": self._name})
                await asyncio.sleep(_RETRY_S)
                self._changed.set()
