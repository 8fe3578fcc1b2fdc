"""Rules for the volumes of a pod and for mounting them. Source: the Volume API documentation."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from k3s.api import names, quantity
from k3s.api.validation.causes import Cause, Causes, duplicate, each, forbidden, invalid, name_of, not_found, required

Spec = Mapping[str, Any]

_HOST_PATH_TYPES = ("", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket")
_DOWNWARD_PATHS = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")
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


def all_of(field: str, values: Sequence[Spec]) -> tuple[dict[str, str], list[Cause]]:
    """The sound volumes (name -> kind of source), and what is wrong with the others."""
    known: dict[str, str] = {}
    causes: list[Cause] = []
    for i, volume in enumerate(values):
        at = f"{field}[{i}]"
        name = volume.get("name", "")
        wrong = list(_source(at, volume))
        wrong += name_of(f"{at}.name", name, names.dns_label)
        if name in known:
            wrong.append(duplicate(f"{at}.name", name))
        if not wrong:
            known[name] = next((kind for kind in _ORDER if kind in volume), "")
        causes += wrong
    return known, causes


def _source(at: str, volume: Spec) -> Causes:
    given = [kind for kind in _ORDER if kind in volume]
    if not given:
        yield required(at, "must specify a volume type")
    for kind in given[1:]:
        yield forbidden(f"{at}.{kind}", "may not specify more than 1 volume type")
    if given:
        check = _SOURCES.get(given[0])
        if check is not None:
            yield from check(f"{at}.{given[0]}", volume[given[0]])


def _empty_dir(at: str, value: Spec) -> Causes:
    if "sizeLimit" in value and quantity.compare(value["sizeLimit"], "0") < 0:
        yield forbidden(f"{at}.sizeLimit", "SizeLimit field must be a valid resource quantity")


def host_path(at: str, value: Spec) -> Causes:
    """A path of the node."""
    path = value.get("path", "")
    if not path:
        yield required(f"{at}.path")
    else:
        yield from _no_backsteps(f"{at}.path", path)
    kind = value.get("type", "")
    if kind not in _HOST_PATH_TYPES:
        from k3s.api.validation.causes import unsupported

        yield unsupported(f"{at}.type", kind, _HOST_PATH_TYPES)


def _no_backsteps(field: str, path: str) -> Causes:
    if ".." in path.split("/"):
        yield invalid(field, path, "must not contain '..'")


def _mode(field: str, value: Any) -> Causes:
    if value is not None and not 0 <= value <= 0o777:
        yield invalid(field, value, "must be a number between 0 and 0777 (octal), both inclusive")


def _relative(field: str, path: str) -> Causes:
    if not path:
        yield required(field)
        return
    if path.startswith("/"):
        yield invalid(field, path, "must be a relative path")
    yield from _no_backsteps(field, path)
    if path.startswith("..") and ".." not in path.split("/"):
        yield invalid(field, path, "must not start with '..'")


def _items(field: str, items: Sequence[Spec] | None) -> Causes:
    for i, item in enumerate(items or ()):
        if not item.get("key"):
            yield required(f"{field}[{i}].key")
        yield from _relative(f"{field}[{i}].path", item.get("path", ""))
        yield from _mode(f"{field}[{i}].mode", item.get("mode"))


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
    from k3s.api.validation import pods

    yield from _mode(f"{at}.defaultMode", value.get("defaultMode"))
    for i, item in enumerate(value.get("items") or ()):
        here = f"{at}.items[{i}]"
        yield from _relative(f"{here}.path", item.get("path", ""))
        if "fieldRef" in item:
            yield from pods.field_ref(f"{here}.fieldRef", item["fieldRef"], _DOWNWARD_PATHS)
            if "resourceFieldRef" in item:
                yield invalid(here, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously")
        elif "resourceFieldRef" in item:
            yield from pods.resource_ref(f"{here}.resourceFieldRef", item["resourceFieldRef"], volume=True)
        else:
            yield required(here, "one of fieldRef and resourceFieldRef is required")
        yield from _mode(f"{here}.mode", item.get("mode"))


def _projected(at: str, value: Spec) -> Causes:
    yield from _mode(f"{at}.defaultMode", value.get("defaultMode"))
    for i, source in enumerate(value.get("sources") or ()):
        here = f"{at}.sources[{i}]"
        given = [k for k in source if k in ("secret", "configMap", "downwardAPI", "serviceAccountToken")]
        for kind in given[1:]:
            yield forbidden(f"{here}.{kind}", "may not specify more than 1 volume type per source")
        token = source.get("serviceAccountToken")
        if token is not None:
            yield from _token(f"{here}.serviceAccountToken", token)
        for kind in ("secret", "configMap"):
            if kind in source:
                if not source[kind].get("name"):
                    yield required(f"{here}.{kind}.name")
                yield from _items(f"{here}.{kind}.items", source[kind].get("items"))
        if "downwardAPI" in source:
            yield from _downward(f"{here}.downwardAPI", source["downwardAPI"])


def _token(at: str, token: Spec) -> Causes:
    seconds = token.get("expirationSeconds", 3600)
    if seconds < 600:
        yield invalid(f"{at}.expirationSeconds", seconds, "may not specify a duration less than 10 minutes")
    elif seconds > 1 << 32:
        yield invalid(f"{at}.expirationSeconds", seconds, "may not specify a duration larger than 2^32 seconds")
    if not token.get("path"):
        yield required(f"{at}.path")
    else:
        yield from _relative(f"{at}.path", token["path"])


def _claim(at: str, value: Spec) -> Causes:
    if not value.get("claimName"):
        yield required(f"{at}.claimName")


def _nfs(at: str, value: Spec) -> Causes:
    for part in ("server", "path"):
        if not value.get(part):
            yield required(f"{at}.{part}")
    if value.get("path") and not value["path"].startswith("/"):
        yield invalid(f"{at}.path", value["path"], "must be an absolute path")


def _csi(at: str, value: Spec) -> Causes:
    driver = value.get("driver", "")
    if not driver:
        yield required(f"{at}.driver")
    else:
        yield from each(f"{at}.driver", driver, names.dns_subdomain(driver.lower()))


def _ephemeral(at: str, value: Spec) -> Causes:
    from k3s.api.validation import storage

    claim = value.get("volumeClaimTemplate")
    if claim is None:
        yield required(f"{at}.volumeClaimTemplate")
    else:
        yield from storage.claim_spec(f"{at}.volumeClaimTemplate.spec", claim.get("spec") or {})


_SOURCES = {
    "emptyDir": _empty_dir,
    "hostPath": host_path,
    "secret": _secret,
    "configMap": _config_map,
    "downwardAPI": _downward,
    "projected": _projected,
    "persistentVolumeClaim": _claim,
    "nfs": _nfs,
    "csi": _csi,
    "ephemeral": _ephemeral,
}


def mounts(field: str, values: Sequence[Spec], known: Mapping[str, str], devices: Collection[Any]) -> Causes:
    """The mounts of one container."""
    paths: set[str] = set()
    for i, mount in enumerate(values):
        at = f"{field}[{i}]"
        name, path = mount.get("name", ""), mount.get("mountPath", "")
        if not name:
            yield required(f"{at}.name")
        elif name not in known:
            yield not_found(f"{at}.name", name)
        if not path:
            yield required(f"{at}.mountPath")
        if path in paths:
            yield invalid(f"{at}.mountPath", path, "must be unique")
        paths.add(path)
        if name in devices:
            yield invalid(f"{at}.name", name, "must not already exist in volumeDevices")
        for part in ("subPath", "subPathExpr"):
            if mount.get(part):
                yield from _sub_path(f"{field}.{part}", mount[part])
        if mount.get("subPath") and mount.get("subPathExpr"):
            yield invalid(
                f"{field}.subPathExpr", mount["subPathExpr"], "subPathExpr and subPath are mutually exclusive"
            )


def _sub_path(field: str, path: str) -> Causes:
    if path.startswith("/"):
        yield invalid(field, path, "must be a relative path")
    yield from _no_backsteps(field, path)


def devices(field: str, values: Sequence[Spec], known: Mapping[str, str]) -> Causes:
    """The block devices of one container."""
    names_: set[str] = set()
    paths: set[str] = set()
    for i, device in enumerate(values):
        at = f"{field}[{i}]"
        name, path = device.get("name", ""), device.get("devicePath", "")
        if not name:
            yield required(f"{at}.name")
        elif name in names_:
            yield invalid(f"{at}.name", name, "must be unique")
        elif name not in known:
            yield not_found(f"{at}.name", name)
        elif known[name] not in ("persistentVolumeClaim", "ephemeral"):
            yield invalid(
                f"{at}.name",
                name,
                "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
            )
        if not path:
            yield required(f"{at}.devicePath")
        elif path in paths:
            yield invalid(f"{at}.devicePath", path, "must be unique")
        names_.add(name)
        paths.add(path)
