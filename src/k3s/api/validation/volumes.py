"""Rules for the volumes of a pod and for mounting them. Source: the Volume API documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from k3s.api import names, quantity
from k3s.api.validation import environment, volumesources
from k3s.api.validation.causes import (
    Cause,
    Causes,
    duplicate,
    each,
    forbidden,
    invalid,
    name_of,
    not_found,
    one_of,
    required,
)

Spec = Mapping[str, Any]

_DOWNWARD_PATHS = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_MODE = "must be a number between 0 and 0777 (octal), both inclusive"
# The order in which sources are looked at: of two, the later one is at fault.
_ORDER = (
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
)


def all_of(field: str, values: Sequence[Spec], pod: str) -> tuple[dict[str, Spec], list[Cause]]:
    """The sound volumes by name, and what is wrong with the others; `pod` is the pod's name, "" for a template."""
    known: dict[str, Spec] = {}
    causes: list[Cause] = []
    made = {f"{pod}-{v.get('name', '')}" for v in values if v.get("ephemeral") is not None} if pod else ()
    for i, volume in enumerate(values):
        at = f"{field}[{i}]"
        name = volume.get("name", "")
        wrong: list[Cause] = []
        if pod and "image" in volume and not (volume["image"] or {}).get("reference"):
            wrong.append(required(f"{at}.image.reference"))
        wrong += volumesources.check(at, volume, _ORDER, _SOURCES)
        wrong += _names(at, name, volume, pod)
        if name in known:
            wrong.append(duplicate(f"{at}.name", name))
        if not wrong:
            known[name] = volume
        causes += wrong
        claim = volume.get("persistentVolumeClaim")
        if claim is not None and claim.get("claimName") in made:
            why = "must not reference a PVC that gets created for an ephemeral volume"
            causes.append(invalid(f"{at}.persistentVolumeClaim.claimName", claim["claimName"], why))
    return known, causes


def _names(at: str, name: str, volume: Spec, pod: str) -> Causes:
    """The name of a volume, also as part of the names that are made from it."""
    iscsi = volume.get("iscsi")
    long = iscsi is not None and len(f"{name}:{iscsi.get('targetPortal', '')}") > 64
    if iscsi is not None and long and iscsi.get("initiatorName") is not None:
        yield invalid(f"{at}.name", name, volumesources.ISCSI_LENGTH)
    if volume.get("ephemeral") is not None and pod and name:
        for problem in names.dns_subdomain(f"{pod}-{name}"):
            yield invalid(f"{at}.name", name, f'PVC name "{pod}-{name}": {problem}')
    yield from name_of(f"{at}.name", name, names.dns_label)


def _empty_dir(at: str, value: Spec) -> Causes:
    if "sizeLimit" in value and quantity.compare(value["sizeLimit"], "0") < 0:
        yield forbidden(f"{at}.sizeLimit", "SizeLimit field must be a valid resource quantity")


def _mode(field: str, value: Any) -> Causes:
    if value is not None and not 0 <= value <= 0o777:
        yield invalid(field, value, _MODE)


def _file(at: str, path: str) -> Causes:
    if not path:
        yield required(f"{at}.path")
    yield from volumesources.inner_path(f"{at}.path", path)


def _items(field: str, items: Sequence[Spec] | None) -> Causes:
    for i, item in enumerate(items or ()):
        at = f"{field}[{i}]"
        if not item.get("key"):
            yield required(f"{at}.key")
        yield from _file(at, item.get("path", ""))
        yield from _mode(f"{at}.mode", item.get("mode"))


def _secret(at: str, value: Spec) -> Causes:
    if not value.get("secretName"):
        yield required(f"{at}.secretName")
    yield from _mode(f"{at}.defaultMode", value.get("defaultMode"))
    yield from _items(f"{at}.items", value.get("items"))


def _config_map(at: str, value: Spec) -> Causes:
    if not value.get("name"):
        yield required(f"{at}.name")
    yield from _mode(f"{at}.defaultMode", value.get("defaultMode"))
    yield from _items(f"{at}.items", value.get("items"))


def _downward(at: str, value: Spec) -> Causes:
    """Files about the pod itself; messages do not say which of them."""
    yield from _mode(f"{at}.defaultMode", value.get("defaultMode"))
    for item in value.get("items") or ():
        yield from _downward_file(at, item)


def _downward_file(at: str, item: Spec) -> Causes:
    yield from _file(at, item.get("path", ""))
    if "fieldRef" in item:
        yield from environment.field_ref(f"{at}.fieldRef", item["fieldRef"], _DOWNWARD_PATHS)
        if "resourceFieldRef" in item:
            yield invalid(at, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously")
    elif "resourceFieldRef" in item:
        yield from environment.resource_ref(f"{at}.resourceFieldRef", item["resourceFieldRef"], volume=True)
    else:
        yield required(at, "one of fieldRef and resourceFieldRef is required")
    yield from _mode(f"{at}.mode", item.get("mode"))


def _projected(at: str, value: Spec) -> Causes:
    yield from _mode(f"{at}.defaultMode", value.get("defaultMode"))
    paths: set[str] = set()
    for i, source in enumerate(value.get("sources") or ()):
        here = f"{at}.sources[{i}]"
        for kind in ("secret", "configMap"):
            if kind in source:
                yield from _projected_data(at, f"{here}.{kind}", source[kind], paths)
        for item in (source.get("downwardAPI") or {}).get("items") or ():
            yield from _downward_file(f"{here}.downwardAPI", item)
            yield from _once(at, item.get("path", ""), item.get("path", ""), paths)
        if "serviceAccountToken" in source:
            yield from _token(at, f"{here}.serviceAccountToken", source["serviceAccountToken"])
        if len([k for k in source if k in ("secret", "configMap", "downwardAPI", "serviceAccountToken")]) > 1:
            yield forbidden(here, "may not specify more than 1 volume type per source")


def _projected_data(at: str, here: str, data: Spec, paths: set[str]) -> Causes:
    if not data.get("name"):
        yield required(f"{here}.name")
    for i, item in enumerate(data.get("items") or ()):
        if not item.get("key"):
            yield required(f"{here}.items[{i}].key")
        yield from _file(f"{here}.items[{i}]", item.get("path", ""))
        yield from _mode(f"{here}.items[{i}].mode", item.get("mode"))
        yield from _once(at, item.get("path", ""), data.get("name", ""), paths)


def _once(at: str, path: str, shown: str, paths: set[str]) -> Causes:
    """Of two files with one path, the second is at fault."""
    if path in paths:
        yield invalid(at, shown, "conflicting duplicate paths")
    elif path:
        paths.add(path)


def _token(at: str, here: str, token: Spec) -> Causes:
    seconds = token.get("expirationSeconds", 3600)
    if seconds < 600:
        yield invalid(f"{here}.expirationSeconds", seconds, "may not specify a duration less than 10 minutes")
    elif seconds > 1 << 32:
        yield invalid(f"{here}.expirationSeconds", seconds, "may not specify a duration larger than 2^32 seconds")
    yield from _file(at, token.get("path", ""))


def _ephemeral(at: str, value: Spec) -> Causes:
    from k3s.api.validation import persistent

    claim = value.get("volumeClaimTemplate")
    if claim is None:
        yield required(f"{at}.volumeClaimTemplate")
    else:
        yield from persistent.claim_template(f"{at}.volumeClaimTemplate", claim)


def _image(at: str, value: Spec) -> Causes:
    yield from one_of(f"{at}.pullPolicy", value.get("pullPolicy", "Always"), _PULL_POLICIES)


_SOURCES: dict[str, tuple[volumesources.Check, ...]] = {
    **volumesources.OF_POD,
    "emptyDir": (_empty_dir,),
    "secret": (_secret,),
    "configMap": (_config_map,),
    "downwardAPI": (_downward,),
    "projected": (_projected,),
    "ephemeral": (_ephemeral,),
    "image": (_image,),
}


def mounts(field: str, container: Spec, known: Mapping[str, Spec]) -> Causes:
    """The mounts of one container."""
    devices_ = {d.get("name", ""): d.get("devicePath", "") for d in container.get("volumeDevices") or ()}
    paths: set[str] = set()
    for i, mount in enumerate(container.get("volumeMounts") or ()):
        at = f"{field}[{i}]"
        name, path = mount.get("name", ""), mount.get("mountPath", "")
        if not name:
            yield required(f"{at}.name")
        if name not in known:
            yield not_found(f"{at}.name", name)
        if not path:
            yield required(f"{at}.mountPath")
        if path in paths:
            yield invalid(f"{at}.mountPath", path, "must be unique")
        paths.add(path)
        if devices_ and name in devices_:
            yield invalid(f"{at}.name", name, "must not already exist in volumeDevices")
        if devices_ and path in devices_.values():
            yield invalid(f"{at}.mountPath", path, "must not already exist as a path in volumeDevices")
        if "subPath" in mount or "subPathExpr" in mount:
            yield from _sub_paths(field, at, mount, "image" in known.get(name, ()))
        if "mountPropagation" in mount:
            yield from _propagation(f"{field}.mountPropagation", mount["mountPropagation"], container)
        if "recursiveReadOnly" in mount:
            yield from _recursive(f"{field}.recursiveReadOnly", mount)


def _sub_paths(field: str, at: str, mount: Spec, image: bool) -> Causes:
    """Paths inside a volume; which mount they are of is said only where it is about both of them."""
    path, expression = mount.get("subPath", ""), mount.get("subPathExpr", "")
    for name, text in (("subPath", path), ("subPathExpr", expression)) if image else ():
        if text:
            yield invalid(f"{at}.{name}", text, "not allowed in image volume sources")
    if path:
        yield from volumesources.relative(f"{field}.subPath", path)
    if expression:
        if path:
            yield invalid(f"{at}.subPathExpr", expression, "subPathExpr and subPath are mutually exclusive")
        yield from volumesources.relative(f"{field}.subPathExpr", expression)


def _propagation(field: str, mode: str, container: Spec) -> Causes:
    yield from one_of(field, mode, ("Bidirectional", "HostToContainer", "None"))
    if mode == "Bidirectional" and not (container.get("securityContext") or {}).get("privileged"):
        yield forbidden(field, "Bidirectional mount propagation is available only to privileged containers")


def _recursive(field: str, mount: Spec) -> Causes:
    mode = mount["recursiveReadOnly"]
    if mode in ("Enabled", "IfPossible"):
        if not mount.get("readOnly"):
            yield forbidden(field, "may only be specified when readOnly is true")
        if mount.get("mountPropagation", "None") != "None":
            yield forbidden(field, "may only be specified when mountPropagation is None or not specified")
    else:
        yield from one_of(field, mode, ("Disabled", "Enabled", "IfPossible"))


_BLOCK_ONLY = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"


def devices(field: str, container: Spec, known: Mapping[str, Spec]) -> Causes:
    """The block devices of one container."""
    mounts_ = {m.get("name", ""): m.get("mountPath", "") for m in container.get("volumeMounts") or ()}
    names_: set[str] = set()
    paths: set[str] = set()
    for i, device in enumerate(container.get("volumeDevices") or ()):
        at = f"{field}[{i}]"
        name, path = device.get("name", ""), device.get("devicePath", "")
        if not name:
            yield required(f"{at}.name")
        if name in names_:
            yield invalid(f"{at}.name", name, "must be unique")
        if name in known and not known[name].keys() & {"persistentVolumeClaim", "ephemeral"}:
            yield invalid(f"{at}.name", name, _BLOCK_ONLY)
        if name not in known:
            yield not_found(f"{at}.name", name)
        if not path:
            yield required(f"{at}.devicePath")
        if path in paths:
            yield invalid(f"{at}.devicePath", path, "must be unique")
        if ".." in path.split("/"):
            yield invalid(f"{at}.devicePath", path, "can not contain backsteps ('..')")
        else:
            paths.add(path)
        if name in mounts_:
            yield invalid(f"{at}.name", name, "must not already exist in volumeMounts")
        if path in mounts_.values():
            yield invalid(f"{at}.devicePath", path, "must not already exist as a path in volumeMounts")
        if name:
            names_.add(name)


def claims(field: str, values: Sequence[Spec]) -> Causes:
    """The resource claims of a pod."""
    from k3s.api.validation.causes import internal

    seen: set[str] = set()
    for i, claim in enumerate(values):
        at = f"{field}[{i}]"
        name = claim.get("name", "")
        if not name:
            yield required(f"{at}.name")
        elif name in seen:
            yield duplicate(f"{at}.name", name)
        else:
            yield from each(f"{at}.name", name, names.dns_label(name))
            seen.add(name)
        direct, template = claim.get("resourceClaimName"), claim.get("resourceClaimTemplateName")
        shown = internal({"name": name, "resourceClaimName": direct, "resourceClaimTemplateName": template})
        if direct is not None and template is not None:
            yield invalid(
                at, shown, "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            )
        if direct is None and template is None:
            yield invalid(at, shown, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`")
        for part, text in (("resourceClaimName", direct), ("resourceClaimTemplateName", template)):
            if text is not None:
                yield from each(f"{at}.{part}", text, names.dns_subdomain(text))
