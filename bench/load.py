"""Server CPU per request on a control plane without a node: the scenarios by name.

Each is a series of values on one control plane; the first one warms up.
"""

from __future__ import annotations

import reads
import watches
import writes

SCENARIOS = {
    "get": reads.get,
    "list": reads.lists,
    "churned": reads.churned,
    "configmaps": writes.config_maps,
    "custom": writes.custom_objects,
    "podwrites": writes.pod_writes,
    "podpatches": writes.pod_patches,
    "durable": writes.durable,
    "watch": watches.watch,
    "crowd": watches.crowded,
    "tls": reads.tls,
}
