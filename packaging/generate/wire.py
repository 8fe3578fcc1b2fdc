"""Makes `src/k3s/api/data/wire.json`, the protobuf tables, from the facts about the API.

    python packaging/generate/wire.py FACTS_DIR

A message is a list of [number, JSON name, type, flags]. Flags: 1 repeated, 2 its zero value means "not given" (a Go
field that is no pointer), 4 its fields stand in the message around it in JSON (an embedded Go struct).
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

REPEATED, PLAIN, INLINE = 1, 2, 4
TARGET = Path(__file__).parents[2] / "src" / "k3s" / "api" / "data" / "wire.json"

# Embedded structs of messages that have no published schema to find them by.
EMBEDDED = {"volumeSource", "handler", "localObjectReference", "ephemeralContainerCommon", "persistentVolumeSource"}
EMBEDDED |= {"ingressRuleValue", "deviceConfiguration", "rule", "ruleWithOperations"}

# Numbers and booleans without a default in the schema that are no pointers in Go all the same.
PLAIN_ANYWHERE = {
    "partition",
    "readOnly",
    "stdin",
    "stdinOnce",
    "tty",
    "sizeBytes",
    "hostPort",
    "signal",
    "minReadySeconds",
    "paused",
    "count",
    "deprecatedCount",
    "unschedulable",
    "generation",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "globalDefault",
    "nodePort",
    "healthCheckNodePort",
    "publishNotReadyAddresses",
    "code",
    "retryAfterSeconds",
    "denied",
    "authenticated",
    "priority",
    "preserveUnknownFields",
    "deprecated",
    "insecureSkipTLSVerify",
    "chapAuthDiscovery",
    "chapAuthSession",
    "sslEnabled",
    "clusterScope",
    "observedGeneration",
    "numberAvailable",
    "numberUnavailable",
    "updatedNumberScheduled",
    "availableReplicas",
    "readyReplicas",
    "unavailableReplicas",
    "updatedReplicas",
    "currentReplicas",
    "fullyLabeledReplicas",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "nullable",
    "uniqueItems",
    "xKubernetesEmbeddedResource",
    "xKubernetesIntOrString",
    "number",
}
PLAIN_IN = {
    "Probe": {"failureThreshold", "initialDelaySeconds", "periodSeconds", "successThreshold", "timeoutSeconds"},
    "JobStatus": {"active", "failed", "succeeded"},
    "DeploymentStatus": {"replicas"},
}
POINTER_IN = {
    "CSIVolumeSource": {"readOnly"},
    "AzureDiskVolumeSource": {"readOnly"},
    "HorizontalPodAutoscalerStatus": {"observedGeneration"},
    "PodSpec": {"priority"},
    "RollingUpdateStatefulSetStrategy": {"partition"},
    "VolumeNodeResources": {"count"},
}
# Texts whose empty value says something else than their absence.
POINTER_TEXTS = {
    "PersistentVolumeClaimSpec": {"storageClassName", "volumeAttributesClassName"},
    "PersistentVolumeClaimStatus": {"currentVolumeAttributesClassName"},
    "IngressSpec": {"ingressClassName"},
    "LeaseSpec": {"holderIdentity", "preferredHolder", "strategy"},
    "TypedLocalObjectReference": {"apiGroup"},
    "TypedObjectReference": {"apiGroup", "namespace"},
    "DeviceAttribute": {"string", "version"},
    "k8s.io.api.discovery.v1.EndpointPort": {"name"},
}
RENAMED = {"uID": "uid", "aPIGroup": "apiGroup", "Webhooks": "webhooks", "Expression": "expression", "Name": "name"}


def short(package: str, message: str) -> str:
    """`core.v1.Pod` for `k8s.io.api.core.v1` and `Pod`."""
    parts = package.split(".")
    return ".".join([parts[-2], parts[-1], message])


def schema_name(package: str, message: str) -> str:
    """The name of the message's definition in the OpenAPI documents."""
    for old, new in (("apiextensions_apiserver", "apiextensions-apiserver"), ("kube_aggregator", "kube-aggregator")):
        package = package.replace(old, new)
    return "io." + package.replace("k8s.io", "k8s", 1) + "." + message


def json_name(message: str, field: str) -> str:
    """The JSON name of a protobuf field."""
    if message == "JSONSchemaProps":
        if field in ("ref", "schema"):
            return "$" + field
        if field.startswith("xKubernetes"):
            return re.sub("([A-Z])", lambda match: "-" + match.group(1).lower(), field)
    return RENAMED.get(field, field)


def type_of(package: str, text: str) -> str:
    """A scalar, `map:<value type>` or the short name of a message."""
    if text.startswith("map<string,"):
        return "map:" + type_of(package, text[len("map<string,") : -1])
    if text.startswith("."):
        owner, _, message = text[1:].rpartition(".")
        return short(owner, message)
    return short(package, text) if text[0].isupper() else text


def is_plain(package: str, message: str, field: str, kind: str, definition: dict[str, Any]) -> bool:
    """Whether the zero value of a scalar field means that it was not given."""
    if kind == "string":
        return field not in POINTER_TEXTS.get(message, ()) and field not in POINTER_TEXTS.get(
            f"{package}.{message}", ()
        )
    if kind not in ("bool", "int32", "int64", "double"):
        # The only int-or-string that is no pointer and may be left out.
        return kind == "bytes" or (message, field) == ("ServicePort", "targetPort")
    if field in POINTER_IN.get(message, ()):
        return False
    name = json_name(message, field)
    default = definition.get("properties", {}).get(name, {}).get("default")
    if default is not None:
        return not default and name not in definition.get("required", ())
    return field in PLAIN_ANYWHERE or field in PLAIN_IN.get(message, ())


def fields_of(package: str, message: str, fields: dict[str, Any], schema: dict[str, Any]) -> list[list[Any]]:
    """The rows of one message."""
    definition = schema.get(schema_name(package, message), {})
    properties = definition.get("properties", {})
    rows = []
    for field, (number, text, *label) in fields.items():
        kind = type_of(package, text)
        flags = REPEATED if label else 0
        if field in EMBEDDED and json_name(message, field) not in properties:
            flags |= INLINE
        elif not label and is_plain(package, message, field, kind, definition):
            flags |= PLAIN
        rows.append([number, json_name(message, field), kind, flags])
    return sorted(rows)


def main(facts: Path) -> None:
    """Writes the tables."""
    packages = json.loads((facts / "protobuf-api.json").read_text())
    described = json.loads((facts / "schema.json").read_text())
    schema = {**described.get("definitionsNotDefault", {}), **described["definitions"]}
    served = {name.rpartition(".")[0] for name in schema}
    tables = {}
    for package, messages in packages.items():
        known = ("apimachinery", "apidiscovery", "k8s.io.metrics")
        if schema_name(package, "x").rpartition(".")[0] not in served and not any(part in package for part in known):
            continue
        for message, fields in messages.items():
            tables[short(package, message)] = fields_of(package, message, fields, schema)
    lines = [f"{json.dumps(name)}:{json.dumps(tables[name], separators=(',', ':'))}" for name in sorted(tables)]
    TARGET.write_text("{" + ",\n".join(lines) + "}\n")
    print(f"{TARGET}: {len(tables)} messages")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
