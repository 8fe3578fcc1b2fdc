"""Rules for the status of a claim: devices that were given to it, what their drivers say, and who uses it.

Source: the API documentation of ResourceClaim (resource.k8s.io); order and wording as upstream's.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

from k3s.api import names
from k3s.api.object import Object
from k3s.api.validation.causes import (
    Causes,
    duplicate,
    forbidden,
    invalid,
    name_of,
    one_of,
    required,
    too_long,
    too_many,
    unchanged,
)
from k3s.api.validation.devices import MOST, binding, configuration, listed, opaque_object, pool_name, references
from k3s.api.validation.events import conditions
from k3s.api.validation.scheduling import node_selector
from k3s.api.validation.storageclasses import driver_name

Spec = Mapping[str, Any]
_MOST_RESERVED = 256
_MOST_CONDITIONS = 8
_MOST_ADDRESSES = 16
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_UUID_SAID = (
    "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal"
)


def claim_status(old: Object, new: Object) -> Causes:
    """The status of a claim, after it was `old`."""
    before, status = old.get("status") or {}, new.get("status") or {}
    reserved, allocation = status.get("reservedFor") or [], status.get("allocation")
    yield from listed("status.reservedFor", reserved, _MOST_RESERVED, _consumer, "uid")
    results = ((allocation or {}).get("devices") or {}).get("results") or ()
    yield from _states(status.get("devices") or (), {_identity(result) for result in results})
    if reserved and allocation is None:
        yield forbidden("status.reservedFor", "may not be specified when `allocated` is not set")
    elif "deletionTimestamp" in new["metadata"]:
        known = before.get("reservedFor") or []
        if any(consumer not in known for consumer in reserved):
            why = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set"
            yield forbidden("status.reservedFor", why)
    if allocation is not None and before.get("allocation") is not None:
        yield from unchanged("status.allocation", before["allocation"], allocation)
    elif allocation is not None:
        claimed = (new.get("spec") or {}).get("devices") or {}
        yield from _allocation("status.allocation", allocation, claimed)


def _consumer(at: str, consumer: Spec) -> Causes:
    for part in ("resource", "name", "uid"):
        if not consumer.get(part):
            yield required(f"{at}.{part}")


def _identity(device: Spec) -> str:
    """A device, or the share of one, as messages name it."""
    parts = [device.get(part, "") for part in ("driver", "pool", "device")]
    return "/".join([*parts, device["shareID"]] if device.get("shareID") else parts)


def _states(devices: Sequence[Spec], allocated: set[str]) -> Causes:
    for i, device in enumerate(devices):
        at = f"status.devices[{i}]"
        yield from _device(at, device)
        yield from _share(at, device)
        if _identity(device) not in allocated:
            why = "must be an allocated device in the claim"
            yield {**invalid(at, "", why), "message": f"Invalid value: {_identity(device)}: {why}"}
        told = device.get("conditions") or ()
        if len(told) > _MOST_CONDITIONS:
            yield too_many(f"{at}.conditions", len(told), _MOST_CONDITIONS)
        yield from conditions(f"{at}.conditions", told)
        if device.get("data") is not None:
            yield from opaque_object(f"{at}.data", device["data"])
        yield from _network(f"{at}.networkData", device.get("networkData") or {})
    seen: set[str] = set()
    for i, device in enumerate(devices):
        if _identity(device) in seen:
            yield {**duplicate(f"status.devices[{i}]", ""), "message": f"Duplicate value: {_identity(device)}"}
        seen.add(_identity(device))


def _device(at: str, device: Spec) -> Causes:
    yield from driver_name(f"{at}.driver", device.get("driver", ""))
    yield from pool_name(f"{at}.pool", device.get("pool", ""))
    yield from name_of(f"{at}.device", device.get("device", ""), names.dns_label)


def _share(at: str, device: Spec) -> Causes:
    share = device.get("shareID")
    if share is not None and not _UUID.match(share):
        yield invalid(f"{at}.shareID", share, f"{_UUID_SAID} characters")


def _network(at: str, data: Spec) -> Causes:
    for part, most in (("interfaceName", 256), ("hardwareAddress", 128)):
        if len(data.get(part, "")) > most:
            yield too_long(f"{at}.{part}", most)
    yield from listed(f"{at}.ips", data.get("ips") or (), _MOST_ADDRESSES, _interface, "")


def _interface(at: str, text: str) -> Causes:
    """An address with the length of its network."""
    try:
        found = ipaddress.ip_interface(text) if "/" in text else None
    except ValueError:
        found = None
    if found is None:
        yield invalid(at, text, "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)")
    elif str(found) != text:
        yield invalid(at, text, f'must be in canonical form ("{found}")')


def _allocation(at: str, allocation: Spec, claimed: Spec) -> Causes:
    devices, reference = allocation.get("devices") or {}, references(claimed)

    def result(here: str, value: Spec) -> Causes:
        yield from reference(f"{here}.request", value.get("request", ""))
        yield from _device(here, value)
        yield from binding(here, value.get("bindingConditions") or [], value.get("bindingFailureConditions") or [])
        yield from _share(here, value)

    def config(here: str, value: Spec) -> Causes:
        if not value.get("source"):
            yield required(f"{here}.source")
        else:
            yield from one_of(f"{here}.source", value["source"], ("FromClaim", "FromClass"))
        yield from listed(f"{here}.requests", value.get("requests") or (), MOST, reference, "")
        yield from configuration(here, value)

    yield from listed(f"{at}.devices.results", devices.get("results") or (), MOST, result)
    yield from listed(f"{at}.devices.config", devices.get("config") or (), 2 * MOST, config)
    if allocation.get("nodeSelector") is not None:
        yield from node_selector(f"{at}.nodeSelector", allocation["nodeSelector"])
