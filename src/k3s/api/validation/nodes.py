"""Rules for nodes. Source: the validation of nodes of 1.36."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from k3s.api import names
from k3s.api.object import Object
from k3s.api.validation import resources, scheduling
from k3s.api.validation.causes import Causes, cidr, duplicate, each, forbidden, invalid, is_cidr, required

Spec = Mapping[str, Any]
_ONLY_ONCE = 'except from "" to valid'
_FEATURE_LIMIT = 253
_feature_ok = re.compile(r"[A-Z][a-zA-Z0-9]*(/[a-zA-Z][a-zA-Z0-9]*)*\Z").match
_FEATURE = (
    "must start with an UpperCamelCase segment, with subsequent segments separated by '/' "
    "(e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes"
)


def _parts(obj: Object) -> tuple[Spec, Spec]:
    return obj.get("spec") or {}, obj.get("status") or {}


def node(obj: Object) -> Causes:
    """A node; parts of its status may come with it."""
    spec, status = _parts(obj)
    yield from scheduling.taints("metadata.taints", spec.get("taints") or ())
    yield from _amounts(status)
    swap = ((status.get("nodeInfo") or {}).get("swap") or {}).get("capacity")
    if swap is not None and swap <= 0:
        yield invalid("metadata.nodeSwapStatus.capacity", swap, "must be greater than zero")
    yield from _features(status.get("declaredFeatures") or [])
    yield from _blocks(spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else []))


def _blocks(blocks: list[str]) -> Causes:
    """The ranges of its pods: one of each family."""
    for i, block in enumerate(blocks):
        yield from cidr(f"spec.podCIDRs[{i}]", block)
    if len(blocks) < 2:
        return
    bad = next((block for block in blocks if not is_cidr(block)), None)
    if bad is not None:
        why = "Internal error: invalid PodCIDRs. failed to check with dual stack with error:invalid CIDR address: "
        yield {"reason": "InternalError", "message": why + bad, "field": "spec.podCIDRs"}
    if bad is not None or len(blocks) > 2 or len({":" in block for block in blocks}) < 2:
        yield invalid("spec.podCIDRs", blocks, "may specify no more than one CIDR for each IP family")


def _amounts(status: Spec) -> Causes:
    for part in ("capacity", "allocatable"):
        for name, text in (status.get(part) or {}).items():
            yield from resources.amount(f"status.{part}.{name}", name, text)


def _features(declared: list[str]) -> Causes:
    for i, feature in enumerate(declared):
        quoted = json.dumps(feature, ensure_ascii=False)
        if len(feature) > _FEATURE_LIMIT:
            why = f"invalid feature name {quoted}: must be no more than {_FEATURE_LIMIT} characters"
            yield invalid(f"status.declaredFeatures[{i}]", feature, why)
        elif not _feature_ok(feature):
            yield invalid(f"status.declaredFeatures[{i}]", feature, f"invalid feature name {quoted}: {_FEATURE}")
        following = declared[i + 1] if i + 1 < len(declared) else None
        if following == feature:
            yield duplicate(f"status.declaredFeatures[{i + 1}]", following)
        elif following is not None and feature > following:
            yield invalid(f"status.declaredFeatures[{i + 1}]", following, "list must be sorted alphabetically")


def update(old: Object, new: Object) -> Causes:
    """A changed node: judged as a new one, then as a changed one, so that some faults are told twice."""
    yield from node(new)
    yield from change(old, new)


def change(old: Object, new: Object) -> Causes:
    """What of a node may change: its pod ranges and its provider stay once they are set."""
    before, (after, status) = old.get("spec") or {}, _parts(new)
    yield from _amounts(status)
    yield from _features(status.get("declaredFeatures") or [])
    seen: list[Any] = []
    for i, address in enumerate(status.get("addresses") or ()):
        if address in seen:
            shown = {"Type": address.get("type", ""), "Address": address.get("address", "")}
            yield duplicate(f"status.addresses[{i}]", shown)
        seen.append(address)
    was, now = before.get("podCIDRs") or [], after.get("podCIDRs") or []
    if was and len(was) != len(now):
        yield forbidden("spec.podCIDRs", f"node updates may not change podCIDR {_ONLY_ONCE}")
    for one, other in zip(was, now, strict=False) if len(was) == len(now) else ():
        if one != other:
            yield forbidden("spec.podCIDRs", f"node updates may not change podCIDR {_ONLY_ONCE}")
    if before.get("providerID") and before["providerID"] != after.get("providerID"):
        yield forbidden("spec.providerID", f"node updates may not change providerID {_ONLY_ONCE}")
    if after.get("configSource") is not None:
        yield from _config("spec.configSource", after["configSource"], reported=False)
    for part in ("assigned", "active", "lastKnownGood"):
        source = (status.get("config") or {}).get(part)
        if source is not None:
            yield from _config(f"status.config.{part}", source, reported=True)
    yield from scheduling.taints("metadata.taints", after.get("taints") or ())
    if before.get("externalID", "") != after.get("externalID", ""):
        yield forbidden("spec.externalID", "may not be updated")


def _config(at: str, source: Spec, *, reported: bool) -> Causes:
    """Where a kubelet's configuration is, or was: nothing reads it any longer, but it is judged."""
    found = source.get("configMap")
    if found is None:
        yield invalid(at, {"ConfigMap": None}, "exactly one reference subfield must be non-nil")
        return
    here = f"{at}.configMap"
    for part in ("uid", "resourceVersion"):
        if not reported and found.get(part):
            yield forbidden(f"{here}.{part}", f"{part} must not be set in spec")
        elif reported and not found.get(part):
            yield required(f"{here}.{part}")
    for part, rule in _CONFIG:
        if not found.get(part):
            yield required(f"{here}.{part}")
        else:
            yield from each(f"{here}.{part}", found[part], rule(found[part]))


_CONFIG = (
    ("namespace", names.dns_label),
    ("name", names.dns_subdomain),
    ("kubeletConfigKey", names.config_map_key),
)
