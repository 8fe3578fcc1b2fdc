"""Tables: what `kubectl get` shows, made on the server.

    table(kind, objects, now) -> Table       columns and rows; `include` says what each row carries of its object
    partial(obj) -> PartialObjectMetadata    only the metadata of an object

Columns come from `data/columns.json`, their texts from `data/columntexts.json`, or both from a custom kind's printer
columns; cells come from `k3s.api.cells`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from k3s.api import descriptions
from k3s.api.cells import cluster, pods, workloads
from k3s.api.cells.custom import custom_cells
from k3s.api.cells.text import Cells, age_at, created
from k3s.api.kinds import Kind
from k3s.api.object import Object

_DATA = Path(__file__).with_name("data")
_META = "meta.k8s.io/v1"

# Scales are no resource of their own: what their columns are called by.
_SCALE = "scale"
_CELLS: dict[str, Cells] = {
    "pods": pods.pod,
    "deployments": workloads.deployment,
    "replicasets": workloads.replica_set,
    "replicationcontrollers": workloads.replica_set,
    "statefulsets": workloads.stateful_set,
    "daemonsets": workloads.daemon_set,
    "jobs": workloads.job,
    "cronjobs": workloads.cron_job,
    "podtemplates": workloads.pod_template,
    "controllerrevisions": workloads.controller_revision,
    "horizontalpodautoscalers": workloads.autoscaler,
    "nodes": cluster.node,
    "namespaces": cluster.namespace,
    "services": cluster.service,
    "endpoints": cluster.endpoints,
    "endpointslices": cluster.endpoint_slice,
    "ingresses": cluster.ingress,
    "ingressclasses": cluster.ingress_class,
    "networkpolicies": cluster.network_policy,
    "ipaddresses": cluster.ip_address,
    "servicecidrs": cluster.service_cidr,
    "persistentvolumes": cluster.persistent_volume,
    "persistentvolumeclaims": cluster.volume_claim,
    "events": cluster.event,
    "resourcequotas": cluster.resource_quota,
    "configmaps": cluster.config_map,
    "secrets": cluster.secret,
    "serviceaccounts": cluster.named,
    "componentstatuses": cluster.component_status,
    "rolebindings": cluster.role_binding,
    "clusterrolebindings": cluster.role_binding,
    "poddisruptionbudgets": cluster.disruption_budget,
    "certificatesigningrequests": cluster.signing_request,
    "leases": cluster.lease,
    "runtimeclasses": cluster.runtime_class,
    "priorityclasses": cluster.priority_class,
    "storageclasses": cluster.storage_class,
    "csidrivers": cluster.csi_driver,
    "csinodes": cluster.csi_node,
    "volumeattachments": cluster.volume_attachment,
    "volumeattributesclasses": cluster.attributes_class,
    "mutatingwebhookconfigurations": cluster.webhooks,
    "validatingwebhookconfigurations": cluster.webhooks,
    "mutatingadmissionpolicies": cluster.admission_policy,
    "validatingadmissionpolicies": cluster.admission_policy,
    "mutatingadmissionpolicybindings": cluster.policy_binding,
    "validatingadmissionpolicybindings": cluster.policy_binding,
    "apiservices": cluster.api_service,
    "flowschemas": cluster.flow_schema,
    "prioritylevelconfigurations": cluster.priority_level,
    "deviceclasses": cluster.named,
    "resourceclaims": cluster.resource_claim,
    "resourceclaimtemplates": cluster.named,
    "resourceslices": cluster.resource_slice,
    _SCALE: workloads.scale,
}
_PLAIN_COLUMNS: list[list[Any]] = [["Name", "string", "name", 0], ["Created At", "date", "", 0]]
_SCALE_COLUMNS: list[list[Any]] = [
    ["Name", "string", "", 0],
    ["Desired", "integer", "", 0],
    ["Available", "integer", "", 0],
    ["Age", "string", "", 0],
]
_CUSTOM_COLUMNS: list[list[Any]] = [["Name", "string", "name", 0], ["Age", "date", "", 0]]


def table(kind: Kind, objects: Iterable[Object], now: float, include: str = "Metadata") -> Object:
    """The meta.k8s.io/v1 Table of some objects of a kind.

    `now` is in seconds since 1970; `include` is what a row carries of its object: Metadata (what the API does unasked),
    Object or None. The caller adds the metadata of the list (`resourceVersion`, `continue`).
    """
    cells = _cells(kind, now)
    carried = _carried(include)
    is_pod = kind.plural == "pods" and not kind.group
    if kind.plural == "flowschemas":
        objects = sorted(objects, key=_matching_order)
    rows = []
    for obj in objects:
        row: Object = {"cells": cells(obj)}
        found = pods.conditions(obj) if is_pod else None
        if found:
            row["conditions"] = found
        row["object"] = carried(obj)
        rows.append(row)
    return {"kind": "Table", "apiVersion": _META, "metadata": {}, "columnDefinitions": columns(kind), "rows": rows}


def _matching_order(obj: Object) -> tuple[int, str]:
    """Flow schemas are shown in the order in which they are tried."""
    return (obj.get("spec") or {}).get("matchingPrecedence", 0), obj["metadata"].get("name", "")


def columns(kind: Kind) -> list[Object]:
    """The column definitions of a kind; not to be changed. A watch sends them with its first event only."""
    if kind.printer_columns:
        own = [
            _column(
                [c["name"], c["type"], c.get("format", ""), c.get("priority", 0)], c.get("description") or _path_text(c)
            )
            for c in kind.printer_columns
        ]
        return [_column(_CUSTOM_COLUMNS[0], _text("", "Name")), *own]
    if kind.kind == "Scale" and not kind.custom:
        return [_column(row, _text(_SCALE, row[0])) for row in _SCALE_COLUMNS]
    return _columns(kind.api_version, kind.plural, kind.custom)


@functools.lru_cache(maxsize=256)
def _columns(api_version: str, plural: str, custom: bool) -> list[Object]:
    rows = _CUSTOM_COLUMNS if custom else _table().get(api_version, {}).get(plural, _PLAIN_COLUMNS)
    return [_column(row, _text(plural, row[0])) for row in rows]


def _path_text(column: Mapping[str, Any]) -> str:
    """What stands for the description of a custom kind's column that has none."""
    return f"Custom resource definition column (in JSONPath format): {column.get('jsonPath', '')}"


def _text(plural: str, column: str) -> str:
    """What a column means: of its kind, or what a column of that name means everywhere; empty when not known."""
    own, shared = _texts()
    return own.get(plural, {}).get(column) or shared.get(column, "")


def _column(row: list[Any], description: str) -> Object:
    name, kind, form, priority = row
    return {"name": name, "type": kind, "format": form, "description": description, "priority": priority}


@functools.cache
def _texts() -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Texts by kind and column, and those of the columns that many kinds have.

    What is written as [definition, field] means what that field of the API means (`k3s.api.descriptions`).
    """
    found: dict[str, Any] = msgspec.json.decode((_DATA / "columntexts.json").read_bytes())
    groups = [*found["kinds"].values(), found["shared"]]
    fields = descriptions.picked(
        (said[0], said[1]) for texts in groups for said in texts.values() if isinstance(said, list)
    )

    def told(texts: Mapping[str, Any]) -> dict[str, str]:
        return {name: fields.get(tuple(said), "") if isinstance(said, list) else said for name, said in texts.items()}

    return {plural: told(texts) for plural, texts in found["kinds"].items()}, told(found["shared"])


@functools.cache
def _table() -> dict[str, dict[str, list[Any]]]:
    found: dict[str, dict[str, list[Any]]] = msgspec.json.decode((_DATA / "columns.json").read_bytes())
    return found


def _cells(kind: Kind, now: float) -> Callable[[Object], list[Any]]:
    age = age_at(now)
    if kind.custom:
        return custom_cells(kind.printer_columns, age)
    make = _CELLS.get(_SCALE if kind.kind == "Scale" else kind.plural)
    if make is None:
        return lambda obj: [obj["metadata"].get("name", ""), created(obj)]
    if not kind.is_storage_version:
        return functools.partial(_converted, kind, make, age)
    return lambda obj: make(obj, age)


def _converted(kind: Kind, make: Cells, age: Callable[[Any], str], obj: Object) -> list[Any]:
    from k3s.api.convert import to_storage

    return make(to_storage(kind, obj), age)


def _carried(include: str) -> Callable[[Object], Object | None]:
    if include == "None":
        return lambda obj: None
    return partial if include in ("", "Metadata") else lambda obj: obj


# Annotations that only carry what another version of a kind says in its spec: they are no metadata of the object.
_CARRIERS = {
    "DaemonSet": ("deprecated.daemonset.template.generation",),
    "HorizontalPodAutoscaler": (
        "autoscaling.alpha.kubernetes.io/behavior",
        "autoscaling.alpha.kubernetes.io/conditions",
        "autoscaling.alpha.kubernetes.io/current-metrics",
        "autoscaling.alpha.kubernetes.io/metrics",
    ),
}


def own_metadata(obj: Object) -> Object:
    """The metadata of an object without what only carries parts of its spec."""
    meta: Object = obj.get("metadata", {})
    carriers = _CARRIERS.get(obj.get("kind", ""))
    if carriers and meta.get("annotations"):
        kept = {key: value for key, value in meta["annotations"].items() if key not in carriers}
        meta = {key: value for key, value in meta.items() if key != "annotations"}
        meta = {**meta, "annotations": kept} if kept else meta
    return meta


def partial(obj: Object) -> Object:
    """The PartialObjectMetadata of an object."""
    return {"kind": "PartialObjectMetadata", "apiVersion": _META, "metadata": own_metadata(obj)}


def partial_list(objects: Iterable[Object], metadata: Mapping[str, Any]) -> Object:
    """The PartialObjectMetadataList of some objects, with the metadata of their list."""
    items = [partial(obj) for obj in objects]
    return {"kind": "PartialObjectMetadataList", "apiVersion": _META, "metadata": metadata, "items": items}
