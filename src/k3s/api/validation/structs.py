"""Structs as the reference server holds them in memory, for messages that quote two of them as a difference.

    difference(name, old, new)     the lines that differ, with three around them

A struct is written as JSON, one field a line, with all its fields in their order and null for what is not there. The
table below says the fields; `*` marks a struct that is a value and always there, `!` a text that is one.
Source: the API's types and recorded answers of upstream 1.36.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from difflib import unified_diff
from typing import Any

Spec = Mapping[str, Any]

_SECRET = "name! namespace!"
_SECRETS = (
    "secretRef",
    "controllerPublishSecretRef",
    "nodeStageSecretRef",
    "nodePublishSecretRef",
    "controllerExpandSecretRef",
    "nodeExpandSecretRef",
)
# Struct -> its fields in order, by the names of the API; `?` is a flag, `#` a number, `!` a text that is always there.
_FIELDS: dict[str, str] = {
    "PersistentVolumeSource": (
        "gcePersistentDisk awsElasticBlockStore hostPath glusterfs nfs rbd quobyte iscsi flexVolume cinder cephfs fc "
        "flocker azureFile vsphereVolume azureDisk photonPersistentDisk portworxVolume scaleIO local storageos csi"
    ),
    "gcePersistentDisk": "pdName! fsType! partition# readOnly?",
    "awsElasticBlockStore": "volumeID! fsType! partition# readOnly?",
    "hostPath": "path! type",
    "glusterfs": "endpoints! path! readOnly? endpointsNamespace",
    "nfs": "server! path! readOnly?",
    "rbd": "monitors image! fsType! pool! user! keyring! secretRef readOnly?",
    "quobyte": "registry! volume! readOnly? user! group! tenant!",
    "iscsi": (
        "targetPortal! iqn! lun# iscsiInterface! fsType! readOnly? portals chapAuthDiscovery? chapAuthSession? "
        "secretRef initiatorName"
    ),
    "flexVolume": "driver! fsType! secretRef readOnly? options",
    "cinder": "volumeID! fsType! readOnly? secretRef",
    "cephfs": "monitors path! user! secretFile! secretRef readOnly?",
    "fc": "targetWWNs lun fsType! readOnly? wwids",
    "flocker": "datasetName! datasetUUID!",
    "azureFile": "secretName! shareName! readOnly? secretNamespace",
    "vsphereVolume": "volumePath! fsType! storagePolicyName! storagePolicyID!",
    "azureDisk": "diskName! diskURI! cachingMode fsType readOnly kind",
    "photonPersistentDisk": "pdID! fsType!",
    "portworxVolume": "volumeID! fsType! readOnly?",
    "scaleIO": (
        "gateway! system! secretRef sslEnabled? protectionDomain! storagePool! storageMode! volumeName! fsType! "
        "readOnly?"
    ),
    "local": "path! fsType",
    "storageos": "volumeName! volumeNamespace! fsType! readOnly? secretRef",
    "csi": (
        "driver! volumeHandle! readOnly? fsType! volumeAttributes controllerPublishSecretRef nodeStageSecretRef "
        "nodePublishSecretRef controllerExpandSecretRef nodeExpandSecretRef"
    ),
    **dict.fromkeys(_SECRETS, _SECRET),
    "PersistentVolumeClaimSpec": (
        "accessModes selector resources* volumeName! storageClassName volumeMode dataSource dataSourceRef "
        "volumeAttributesClassName"
    ),
    "resources": "limits requests",
    "dataSource": "apiGroup kind! name!",
    "dataSourceRef": "apiGroup kind! name! namespace",
}
# Names that are not the API's own with a capital.
_NAMES = {
    "gcePersistentDisk": "GCEPersistentDisk",
    "awsElasticBlockStore": "AWSElasticBlockStore",
    "nfs": "NFS",
    "rbd": "RBD",
    "iscsi": "ISCSI",
    "cephfs": "CephFS",
    "fc": "FC",
    "storageos": "StorageOS",
    "csi": "CSI",
    "pdName": "PDName",
    "fsType": "FSType",
    "endpoints": "EndpointsName",
    "monitors": "CephMonitors",
    "image": "RBDImage",
    "pool": "RBDPool",
    "user": "RadosUser",
    "iqn": "IQN",
    "iscsiInterface": "ISCSIInterface",
    "chapAuthDiscovery": "DiscoveryCHAPAuth",
    "chapAuthSession": "SessionCHAPAuth",
    "wwids": "WWIDs",
    "diskURI": "DataDiskURI",
    "sslEnabled": "SSLEnabled",
    "apiGroup": "APIGroup",
}
_NAMES_IN = {
    ("quobyte", "user"): "User",
    ("cephfs", "monitors"): "Monitors",
    ("cephfs", "user"): "User",
}
_ZERO: dict[str, Any] = {"!": "", "?": False, "#": 0}


def _dumped(struct: str, value: Spec) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for word in _FIELDS[struct].split():
        field = word.rstrip("!?#*")
        mark = word[len(field) :]
        found = value.get(field, {} if mark == "*" else _ZERO.get(mark))
        if field in _FIELDS and found is not None:
            found = _dumped(field, found)
        name = _NAMES_IN.get((struct, field)) or _NAMES.get(field) or field[:1].upper() + field[1:]
        out[name] = dict(sorted(found.items())) if isinstance(found, dict) and field not in _FIELDS else found
    return out


def _lines(struct: str, value: Spec) -> list[str]:
    text = json.dumps(_dumped(struct, value), indent=1, ensure_ascii=False)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return [line + "\n" for line in text.split("\n")]


def difference(struct: str, old: Spec, new: Spec) -> str:
    """What differs between two structs of this name, as a unified difference without its head."""
    return "".join([*unified_diff(_lines(struct, old), _lines(struct, new))][2:])
