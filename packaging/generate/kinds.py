"""Makes `src/k3s/api/data/kinds.json`, the table of built-in kinds, from a folder of facts.

    python packaging/generate/kinds.py FOLDER_OF_FACTS

Only what upstream serves by default is taken. The result is committed: building needs no facts.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[2] / "src/k3s/api/data"

# Several versions of one kind are stored once: (group, version, plural) -> where. Everything else is stored as it is.
SHARED = {
    ("autoscaling", "v1", "horizontalpodautoscalers"): ("autoscaling", "v2"),
    ("events.k8s.io", "v1", "events"): ("", "v1"),
}
# Served by computing an answer, never from the datastore.
COMPUTED = {"bindings", "componentstatuses"}
# Bodies of subresources and requests: they have a schema, but no resource of their own.
BODIES = [
    ("autoscaling", "v1", "Scale", True),
    ("policy", "v1", "Eviction", True),
    ("authentication.k8s.io", "v1", "TokenRequest", True),
    ("", "v1", "DeleteOptions", False),
    ("", "v1", "Status", False),
]


def definition_names(schema: dict[str, Any]) -> dict[tuple[str, str, str], str]:
    """The name of the definition of each (group, version, kind)."""
    names: dict[tuple[str, str, str], str] = {}
    for name, definition in schema["definitions"].items():
        for gvk in definition.get("x-kubernetes-group-version-kind", ()):
            names[gvk["group"], gvk["version"], gvk["kind"]] = name
    names["", "v1", "DeleteOptions"] = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"
    return names


def subresource(parent: tuple[str, str], name: str, facts: dict[str, Any]) -> list[Any]:
    """A row: name, group, version, kind, verbs; group and version are empty when they are the parent's."""
    group, version = facts.get("group", ""), facts.get("version", "")
    response = facts["responseKind"]
    assert (response["group"], response["version"], response["kind"]) == (group, version, facts["kind"]), (parent, name)
    return [name, group, version, facts["kind"], facts["verbs"]]


def row(group: str, version: str, plural: str, facts: dict[str, Any], definition: str) -> dict[str, Any]:
    """The facts of one resource; what follows from the rest is left out."""
    verbs = facts["verbs"]
    out: dict[str, Any] = {
        "group": group,
        "version": version,
        "kind": facts["kind"],
        "plural": plural,
        "singular": facts["singular"],
        "namespaced": facts["namespaced"],
        "verbs": verbs,
        "definition": definition,
    }
    for key, source in (("shortNames", "shortNames"), ("categories", "categories")):
        if facts.get(source):
            out[key] = facts[source]
    if facts.get("subresources"):
        out["subresources"] = [subresource((group, plural), n, s) for n, s in sorted(facts["subresources"].items())]
    if verbs == ["create"] or plural in COMPUTED:
        out["stored"] = False
    shared = SHARED.get((group, version, plural))
    if shared:
        out["storage"] = list(shared)
    return out


def main(folder: Path) -> None:
    facts = json.loads((folder / "api-resources.json").read_text())
    names = definition_names(json.loads((folder / "schema.json").read_text()))
    groups = [["", ["v1"]]]
    groups += [[g, facts["groups"][g]["versions"]] for g in facts["apisOrder"]]
    assert facts["apisOrder"] == facts["aggregatedOrder"]
    rows = []
    for group, versions in groups:
        for version in versions:
            served = facts["groupVersions"][f"{group}/{version}" if group else version]
            assert served["order"] == sorted(served["order"]), (group, version)
            assert served["aggregatedOrder"] == sorted(served["resources"]), (group, version)
            for plural in served["aggregatedOrder"]:
                resource = served["resources"][plural]
                rows.append(row(group, version, plural, resource, names[group, version, resource["kind"]]))
    bodies = [[g, v, k, n, names[g, v, k]] for g, v, k, n in BODIES]
    DATA.mkdir(exist_ok=True)
    text = json.dumps({"groups": groups, "kinds": rows, "bodies": bodies}, separators=(",", ":"), sort_keys=True)
    (DATA / "kinds.json").write_text(text + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
