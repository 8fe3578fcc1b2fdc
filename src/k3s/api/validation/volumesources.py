"""Rules for the sources of volumes, of pods and of persistent volumes: a table of small checks by source.

Source: the API documentation of each volume type. Two tables, since some sources say more in a persistent volume.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from k3s.api import names
from k3s.api.validation.causes import Causes, each, forbidden, invalid, one_of, required, too_long, unsupported

Spec = Mapping[str, Any]
Check = Callable[[str, Spec], Causes]

HOST_PATH_TYPES = ("", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket")
_PARTITION = (0, 255, "must be between 1 and 255, inclusive")
_LUN = (0, 255, "must be between 0 and 255, inclusive")
_ISCSI_NAMES = {
    "iqn": re.compile(r"iqn\.\d{4}-\d{2}\.([A-Za-z0-9\-.]+)(:[^,;*&$|\s]+)\Z"),
    "eui": re.compile(r"eui.[A-Za-z0-9]{16}\Z"),
    "naa": re.compile(r"naa.[A-Za-z0-9]{32}\Z"),
}
_ISCSI_START = "must be valid format starting with iqn, eui, or naa"
_DISK_URIS = {
    "Managed": (
        "/subscriptions/",
        "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}",
    ),
    "": ("https://", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"),
}
ISCSI_LENGTH = (
    "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if "
    + "iscsi.initiatorName is specified."
)
_PAIRS = "must be a host:port pair or multiple pairs separated by commas"


def _needs(*fields: str) -> Check:
    """Each of these fields is there."""

    def check(at: str, value: Spec) -> Causes:
        for field in fields:
            if not value.get(field):
                yield required(f"{at}.{field}")

    return check


def _within(field: str, low: int, high: int, text: str) -> Check:
    def check(at: str, value: Spec) -> Causes:
        if not low <= (value.get(field) or 0) <= high:
            yield invalid(f"{at}.{field}", value[field], text)

    return check


def _names(field: str, *parts: str) -> Check:
    """A reference that is there names these parts."""

    def check(at: str, value: Spec) -> Causes:
        reference: Spec | None = value.get(field)
        for part in parts:
            if reference is not None and not reference.get(part):
                yield required(f"{at}.{field}.{part}")

    return check


def relative(field: str, path: str) -> Causes:
    """A path that stays below where it starts."""
    if path.startswith("/"):
        yield invalid(field, path, "must be a relative path")
    yield from no_backsteps(field, path)


def no_backsteps(field: str, path: str) -> Causes:
    """A path without `..` as one of its parts."""
    if ".." in path and ".." in path.split("/"):
        yield invalid(field, path, "must not contain '..'")


def inner_path(field: str, path: str) -> Causes:
    """The path of a file in a volume that is made from data: relative, and not of the names kept for links."""
    yield from relative(field, path)
    if path.startswith("..") and not path.startswith("../"):
        yield invalid(field, path, "must not start with '..'")


def _host_path(at: str, value: Spec) -> Causes:
    path = value.get("path", "")
    if not path:
        yield required(f"{at}.path")
        return
    yield from no_backsteps(f"{at}.path", path)
    yield from one_of(f"{at}.type", value.get("type", ""), HOST_PATH_TYPES)


def _git_repo(at: str, value: Spec) -> Causes:
    if not value.get("repository"):
        yield required(f"{at}.repository")
    yield from relative(f"{at}.directory", value.get("directory", ""))


def _nfs(at: str, value: Spec) -> Causes:
    yield from _needs("server", "path")(at, value)
    if not value.get("path", "").startswith("/"):
        yield invalid(f"{at}.path", value.get("path", ""), "must be an absolute path")


def _iscsi_name(field: str, name: str, start: str) -> Causes:
    form = _ISCSI_NAMES.get(name[:3])
    if form is None:
        yield invalid(field, name, start)
    elif not form.match(name):
        yield invalid(field, name, "must be valid format")


def _iscsi(start: str) -> Check:
    """An iSCSI target; `start` is what is said of a name of no known form."""

    def check(at: str, value: Spec) -> Causes:
        yield from _needs("targetPortal", "iqn")(at, value)
        if value.get("iqn"):
            yield from _iscsi_name(f"{at}.iqn", value["iqn"], start)
        yield from _within("lun", *_LUN)(at, value)
        if (value.get("chapAuthDiscovery") or value.get("chapAuthSession")) and value.get("secretRef") is None:
            yield required(f"{at}.secretRef")
        if start != _ISCSI_START:
            yield from _names("secretRef", "name")(at, value)
        if value.get("initiatorName") is not None:
            yield from _iscsi_name(f"{at}.initiatorname", value["initiatorName"], start)

    return check


def _fibre(at: str, value: Spec) -> Causes:
    targets, ids = value.get("targetWWNs"), value.get("wwids")
    if not targets and not ids:
        yield required(f"{at}.targetWWNs", "must specify either targetWWNs or wwids, but not both")
    if targets and ids:
        yield invalid(f"{at}.targetWWNs", targets, "targetWWNs and wwids can not be specified simultaneously")
    if targets and value.get("lun") is None:
        yield required(f"{at}.lun", "lun is required if targetWWNs is specified")
    elif targets:
        yield from _within("lun", *_LUN)(at, value)


def _quobyte(at: str, value: Spec) -> Causes:
    registry = value.get("registry", "")
    if not registry:
        yield required(f"{at}.registry", _PAIRS)
    elif len(value.get("tenant", "")) >= 65:
        yield required(f"{at}.tenant", "must be a UUID and may not exceed a length of 64 characters")
    else:
        for pair in registry.split(","):
            if not re.fullmatch(r"(\[[^\[\]]*\]|[^\[\]:]*):[^\[\]:]*", pair):
                yield invalid(f"{at}.registry", registry, _PAIRS)
    yield from _needs("volume")(at, value)


def _flocker(at: str, value: Spec) -> Causes:
    name, uid = value.get("datasetName", ""), value.get("datasetUUID", "")
    if not name and not uid:
        yield required(at, "one of datasetName and datasetUUID is required")
    if name and uid:
        yield invalid(at, "resource", "datasetName and datasetUUID can not be specified simultaneously")
    if "/" in name:
        yield invalid(f"{at}.datasetName", name, "must not contain '/'")


def _flex(at: str, value: Spec) -> Causes:
    yield from _needs("driver")(at, value)
    for key in value.get("options") or ():
        space = "." + key.partition("/")[0].lower()
        if space.endswith((".kubernetes.io", ".k8s.io")):
            yield invalid(f"{at}.options[{key}]", key, "kubernetes.io and k8s.io namespaces are reserved")


def _azure_disk(at: str, value: Spec) -> Causes:
    yield from _needs("diskName", "diskURI")(at, value)
    kind, uri = value.get("kind"), value.get("diskURI", "")
    if "cachingMode" in value:
        yield from one_of(f"{at}.cachingMode", value["cachingMode"], ("None", "ReadOnly", "ReadWrite"))
    if kind is not None:
        yield from one_of(f"{at}.kind", kind, ("Dedicated", "Managed", "Shared"))
        start, form = _DISK_URIS["Managed" if kind == "Managed" else ""]
        if not uri.startswith(start):
            yield unsupported(f"{at}.diskURI", uri, (form,))


def _azure_file(at: str, value: Spec) -> Causes:
    yield from _needs("secretName", "shareName")(at, value)
    if value.get("secretNamespace") == "":
        yield required(f"{at}.secretNamespace")


def _storage_os(*parts: str) -> Check:
    def check(at: str, value: Spec) -> Causes:
        yield from _needs("volumeName")(at, value)
        for field in ("volumeName", "volumeNamespace"):
            if value.get(field):
                yield from each(f"{at}.{field}", value[field], names.dns_label(value[field]))
        yield from _names("secretRef", *parts)(at, value)

    return check


def _glusterfs(at: str, value: Spec) -> Causes:
    yield from _needs("endpoints", "path")(at, value)
    space = value.get("endpointsNamespace")
    if space == "":
        why = "if the endpointnamespace is set, it must be a valid namespace name"
        yield invalid(f"{at}.endpointsNamespace", space, why)
    elif space is not None:
        yield from each(f"{at}.endpointsNamespace", space, names.dns_label(space))


def csi_driver(field: str, name: str) -> Causes:
    """The name of a CSI driver."""
    if not name:
        yield required(field)
        return
    if len(name) > 63:
        yield too_long(field, 63)
    yield from each(field, name, names.dns_subdomain(name.lower()))


def _csi(at: str, value: Spec) -> Causes:
    yield from csi_driver(f"{at}.driver", value.get("driver", ""))
    secret = value.get("nodePublishSecretRef")
    if secret is not None:
        name = secret.get("name", "")
        if not name:
            yield required(f"{at}.nodePublishSecretRef.name")
        else:
            yield from each(f"{at}.name", name, names.dns_subdomain(name))


_CSI_SECRETS = (
    "controllerPublishSecretRef",
    "controllerExpandSecretRef",
    "nodePublishSecretRef",
    "nodeExpandSecretRef",
)


def _csi_persistent(at: str, value: Spec) -> Causes:
    yield from csi_driver(f"{at}.driver", value.get("driver", ""))
    yield from _needs("volumeHandle")(at, value)
    for field in _CSI_SECRETS:
        secret: Spec | None = value.get(field)
        for part, rule in (("name", names.dns_subdomain), ("namespace", names.dns_label)):
            if secret is None:
                break
            text = secret.get(part, "")
            if not text:
                yield required(f"{at}.{field}.{part}")
            else:
                yield from each(f"{at}.{field}.{part}", text, rule(text))


def _local(at: str, value: Spec) -> Causes:
    if not value.get("path"):
        yield required(f"{at}.path")
    else:
        yield from no_backsteps(f"{at}.path", value["path"])


# Sources with the same rules wherever they are. A tuple of checks runs in order.
_SHARED: dict[str, tuple[Check, ...]] = {
    "hostPath": (_host_path,),
    "gcePersistentDisk": (_needs("pdName"), _within("partition", *_PARTITION)),
    "awsElasticBlockStore": (_needs("volumeID"), _within("partition", *_PARTITION)),
    "nfs": (_nfs,),
    "rbd": (_needs("monitors", "image"),),
    "quobyte": (_quobyte,),
    "cephfs": (_needs("monitors"),),
    "fc": (_fibre,),
    "flexVolume": (_flex,),
    "flocker": (_flocker,),
    "azureFile": (_azure_file,),
    "azureDisk": (_azure_disk,),
    "vsphereVolume": (_needs("volumePath"),),
    "photonPersistentDisk": (_needs("pdID"),),
    "portworxVolume": (_needs("volumeID"),),
    "scaleIO": (_needs("gateway", "system", "volumeName"),),
}
OF_POD: dict[str, tuple[Check, ...]] = {
    **_SHARED,
    "gitRepo": (_git_repo,),
    "glusterfs": (_needs("endpoints", "path"),),
    "iscsi": (_iscsi(_ISCSI_START),),
    "persistentVolumeClaim": (_needs("claimName"),),
    "cinder": (_needs("volumeID"), _names("secretRef", "name")),
    "storageos": (_storage_os("name"),),
    "csi": (_csi,),
}
OF_PERSISTENT: dict[str, tuple[Check, ...]] = {
    **_SHARED,
    "glusterfs": (_glusterfs,),
    "iscsi": (_iscsi("must be valid format"),),
    "cinder": (_needs("volumeID"), _names("secretRef", "name", "namespace")),
    "storageos": (_storage_os("name", "namespace"),),
    "local": (_local,),
    "csi": (_csi_persistent,),
}
# Where the path of a source in messages is not the name of the field; and where it differs for a second source.
_PATHS = {"gcePersistentDisk": "persistentDisk"}
_SECOND = {"cephfs": "cephFS", "downwardAPI": "downwarAPI"}


def check(at: str, holder: Spec, order: Sequence[str], table: Mapping[str, Iterable[Check]]) -> Causes:
    """The one source of a volume; `order` is that in which sources are looked at: of two, the later is at fault."""
    found = False
    for kind in order:
        value = holder.get(kind)
        if value is None:
            continue
        if found:
            yield forbidden(f"{at}.{_SECOND.get(kind, kind)}", "may not specify more than 1 volume type")
            continue
        found = True
        for rule in table.get(kind, ()):
            yield from rule(f"{at}.{_PATHS.get(kind, kind)}", value)
    if not found:
        yield required(at, "must specify a volume type")
