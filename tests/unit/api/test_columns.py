"""Tables, against rows that upstream made."""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path
from typing import Any

import pytest

from k3s.api import columns, descriptions, kinds, schema, times
from k3s.api.cells.text import duration
from k3s.api.kinds import REGISTRY, builtin

DATA = json.loads((Path(__file__).parents[2] / "data/tables.json").read_text())
CREATED = times.parse("2026-11-22T08:41:00Z")
# Cells that show what the server itself chose: a cluster address, a uid, the requesting user, a time of creation.
CHOSEN = {"Cluster-IP", "Requestor", "Created At"}


def _object(kind: kinds.Kind, sample: dict[str, Any]) -> dict[str, Any]:
    obj = {"apiVersion": kind.api_version, "kind": kind.kind, **sample["object"]}
    obj["metadata"] = {**obj["metadata"], "creationTimestamp": "2026-11-22T08:41:00Z"}
    if sample.get("deleted"):
        obj["metadata"]["deletionTimestamp"] = "2026-11-22T08:41:00Z"
        if kind.kind == "Namespace":
            obj["status"] = {"phase": "Terminating"}
    if kind.kind == "Pod":
        obj["status"] = {"phase": "Pending", **obj.get("status", {})}
    if sample["object"]["metadata"]["name"] == "v1.remote.example":
        obj["status"] = {"conditions": [{"type": "Available", "status": "False", "reason": "ServiceNotFound"}]}
    return schema.defaults(kind, schema.prune(kind, obj)[0])


@pytest.mark.parametrize(
    "sample", DATA["samples"], ids=[f"{s['resource']}-{s['object']['metadata']['name']}" for s in DATA["samples"]]
)
def test_rows_have_the_cells_of_upstream(sample: dict[str, Any]) -> None:
    """Each sample row, except for what only that server could know."""
    group, version, plural = sample["resource"].split("/")
    kind = REGISTRY.by_resource(group, version, plural)
    assert kind is not None
    made = columns.table(kind, [_object(kind, sample)], CREATED)
    names = [c["name"] for c in made["columnDefinitions"]]
    row = made["rows"][0]
    assert len(row["cells"]) == len(sample["cells"])
    for position, (got, expected) in enumerate(zip(row["cells"], sample["cells"], strict=True)):
        name = names[position] if position < len(names) else "Age"
        if (name in CHOSEN and got != "None") or "controller-uid" in str(expected):
            continue
        assert _same_age(got, expected) or (got, type(got)) == (expected, type(expected)), name
    bare = [{k: v for k, v in c.items() if k != "message"} for c in row.get("conditions", ())]
    assert bare == sample.get("conditions", [])


def _same_age(got: Any, expected: Any) -> bool:
    """Both are an age; the samples were taken a second or two after they were made."""
    return all(isinstance(v, str) and re.fullmatch(r"\d+s", v) for v in (got, expected))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-2, "<invalid>"),
        (-0.5, "0s"),
        (119, "119s"),
        (120, "2m"),
        (599, "9m59s"),
        (600, "10m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600, "3h"),
        (8 * 3600 - 60, "7h59m"),
        (48 * 3600 - 1, "47h"),
        (48 * 3600, "2d"),
        (49 * 3600, "2d1h"),
        (8 * 86400, "8d"),
        (730 * 86400, "2y"),
        (731 * 86400, "2y1d"),
        (8 * 365 * 86400, "8y"),
    ],
)
def test_ages(seconds: float, text: str) -> None:
    """The unit grows with the age, and the second unit is left out when it is nothing."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("resource", "obj", "shown"),
    [
        ("ingresses", {"spec": {"rules": [{"host": "a"}, {}, {"host": "b"}]}}, {"Hosts": "a,b"}),
        ("ingresses", {"spec": {"rules": [{"host": h} for h in "abc"] + [{}]}}, {"Hosts": "a,b,c + 1 more..."}),
        ("ingresses", {"spec": {"rules": [{}, *({"host": h} for h in "abcd")]}}, {"Hosts": "a,b,c + 2 more..."}),
        ("ingresses", {"spec": {"rules": [{}, {}, {}, {}]}}, {"Hosts": "*"}),
        ("endpoints", {"subsets": [{"notReadyAddresses": [{"ip": "10.0.0.1"}]}]}, {"Endpoints": ""}),
        ("endpointslices", {"ports": [{"name": ""}]}, {"Ports": "<unset>"}),
        ("endpointslices", {"ports": [{}, {"name": "a"}, {"port": 1, "name": "b"}]}, {"Ports": "*,a,1"}),
        (
            "ingressclasses",
            {"metadata": {"annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}}},
            {"Name": "x (default)"},
        ),
        ("ingressclasses", {"spec": {"parameters": {"kind": "K", "name": "n"}}}, {"Parameters": "K/n"}),
        (
            "ipaddresses",
            {"spec": {"parentRef": {"group": "g.io", "resource": "things", "name": "n"}}},
            {"ParentRef": "things.g.io/n"},
        ),
        ("ipaddresses", {}, {"ParentRef": "<none>"}),
        (
            "prioritylevelconfigurations",
            {"spec": {"type": "Exempt", "exempt": {"nominalConcurrencyShares": 3}}},
            {"NominalConcurrencyShares": "<none>", "Queues": "<none>"},
        ),
        ("resourceslices", {"spec": {"allNodes": True}}, {"Node": ""}),
        ("nodes", {"status": {"nodeInfo": {"architecture": "arm64"}}}, {"Kernel-Version": "<unknown> (arm64)"}),
        (
            "nodes",
            {
                "metadata": {"labels": {"node-role.kubernetes.io/b": "", "kubernetes.io/role": "a"}},
                "spec": {"unschedulable": True},
                "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]},
            },
            {"Roles": "a,b", "Status": "NotReady,SchedulingDisabled"},
        ),
        ("persistentvolumeclaims", {"spec": {"volumeAttributesClassName": ""}}, {"VolumeAttributesClass": ""}),
        (
            "certificatesigningrequests",
            {
                "status": {
                    "conditions": [{"type": "Denied"}, {"type": "Approved"}, {"type": "Failed"}],
                    "certificate": "eA==",
                }
            },
            {"Condition": "Denied,Failed,Issued"},
        ),
        (
            "events",
            {
                "message": " hello ",
                "source": {"component": "c"},
                "reportingInstance": "i",
                "involvedObject": {"kind": "Node"},
            },
            {"Message": "hello", "Source": "c, i", "Object": "node", "Count": 1, "Last Seen": "<unknown>"},
        ),
    ],
)
def test_cells_of_branches_that_no_sample_shows(resource: str, obj: dict[str, Any], shown: dict[str, Any]) -> None:
    """Rules of upstream's printers, one branch each."""
    kind = next(k for k in REGISTRY.all() if k.plural == resource and k.group != "events.k8s.io")
    whole = {**obj, "metadata": {"name": "x", **obj.get("metadata", {})}}
    made = columns.table(kind, [whole], 0)
    cells = dict(zip((c["name"] for c in made["columnDefinitions"]), made["rows"][0]["cells"], strict=False))
    assert {name: cells[name] for name in shown} == shown


def _container(state: str, said: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"state": {state: said or {}}, **more}


@pytest.mark.parametrize(
    ("status", "ready", "reason"),
    [
        ({"containerStatuses": [_container("terminated", {"reason": "Completed"})]}, "0/1", "Completed"),
        (
            {
                "containerStatuses": [
                    _container("terminated", {"reason": "Completed"}),
                    _container("terminated", {"reason": "Error", "exitCode": 1}),
                ]
            },
            "0/1",
            "Error",
        ),
        (
            {
                "containerStatuses": [
                    _container("terminated", {"reason": "Completed"}),
                    _container("terminated", {"exitCode": 3, "signal": 9}),
                    _container("running", ready=True),
                ]
            },
            "1/1",
            "Signal:9",
        ),
        (
            {
                "containerStatuses": [
                    _container("terminated", {"reason": "Completed"}),
                    _container("running", ready=True),
                ]
            },
            "1/1",
            "NotReady",
        ),
        (
            {
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [
                    _container("terminated", {"reason": "Completed"}),
                    _container("terminated", {"reason": "Error", "exitCode": 1}),
                    _container("running", ready=True),
                ],
            },
            "1/1",
            "Running",
        ),
        (
            {
                "containerStatuses": [
                    _container("terminated", {"exitCode": 2}),
                    _container("waiting", {"reason": "CrashLoopBackOff"}),
                ]
            },
            "0/1",
            "ExitCode:2",
        ),
        ({"initContainerStatuses": [_container("waiting", {"reason": "PodInitializing"})]}, "0/1", "Init:0/0"),
        ({"initContainerStatuses": [_container("terminated", {"exitCode": 1})]}, "0/1", "Init:ExitCode:1"),
    ],
)
def test_the_status_of_a_pod_follows_from_its_containers(status: dict[str, Any], ready: str, reason: str) -> None:
    """What ended badly stands out among what completed, except in a pod that is ready."""
    obj = {"metadata": {"name": "x"}, "spec": {"containers": [{"name": "a"}]}, "status": {"phase": "Running", **status}}
    assert columns.table(builtin("v1", "Pod"), [obj], 0)["rows"][0]["cells"][1:3] == [ready, reason]


def test_flow_schemas_are_shown_in_matching_order() -> None:
    """By precedence, then by name."""
    kind = next(k for k in REGISTRY.all() if k.plural == "flowschemas")
    given = [("c", 5), ("b", 9), ("a", 9), ("d", 1)]
    objects = [{"metadata": {"name": name}, "spec": {"matchingPrecedence": at}} for name, at in given]
    assert [row["cells"][0] for row in columns.table(kind, objects, 0)["rows"]] == ["d", "c", "a", "b"]


@pytest.mark.parametrize(
    ("phase", "message"),
    [("Succeeded", "The pod has completed successfully."), ("Failed", "The pod failed.")],
)
def test_rows_of_pods_that_ended_say_so(phase: str, message: str) -> None:
    """The condition of the row has a message."""
    row = columns.table(builtin("v1", "Pod"), [{"metadata": {"name": "x"}, "status": {"phase": phase}}], 0)["rows"][0]
    assert row["conditions"] == [{"type": "Completed", "status": "True", "reason": phase, "message": message}]


def test_rows_carry_what_was_asked_for() -> None:
    """Metadata by default, the whole object, or null."""
    kind = builtin("v1", "ConfigMap")
    obj = {"metadata": {"name": "x"}, "data": {"a": "b"}}
    rows = [columns.table(kind, [obj], 0, include)["rows"][0]["object"] for include in ("Metadata", "Object", "None")]
    assert rows[0] == {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "x"}}
    assert rows[1] is obj
    assert rows[2] is None


def test_every_kind_has_as_many_cells_as_columns() -> None:
    """An object with nothing but a name makes a full row; addresses carry an age without a column."""
    for kind in REGISTRY.all():
        made = columns.table(kind, [{"metadata": {"name": "x"}}], 0)
        extra = kind.plural == "ipaddresses"
        assert len(made["rows"][0]["cells"]) == len(made["columnDefinitions"]) + extra, kind


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_custom_kinds_use_their_printer_columns(version: str) -> None:
    """Each type of column, a list, a missing value; without columns name and age."""
    facts = DATA["custom"]
    expected = facts["tables"][version]
    own = tuple(facts["additionalPrinterColumns"]) if version == "v1" else ()
    kind = kinds.make("g.io", version, "Thing", "things", namespaced=True, custom=True, printer_columns=own)
    obj = {"metadata": {"name": "x", "creationTimestamp": "2026-11-22T08:41:00Z"}, "spec": facts["spec"]}
    made = columns.table(kind, [obj], CREATED)
    shape = [[c["name"], c["type"], c["format"], c["priority"]] for c in made["columnDefinitions"]]
    assert shape == expected["columns"]
    assert made["rows"][0]["cells"] == expected["cells"]


def test_filters_in_column_paths() -> None:
    """The form that shows a condition's status."""
    column = {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'}
    kind = kinds.make("g.io", "v1", "Thing", "things", namespaced=True, custom=True, printer_columns=(column,))
    conditions = [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]
    obj = {"metadata": {"name": "x"}, "status": {"conditions": conditions}}
    assert columns.table(kind, [obj], 0)["rows"][0]["cells"] == ["x", "True"]


def test_objects_in_columns_are_written_as_go_does() -> None:
    """Keys in order, signs of HTML escaped."""
    column = {"name": "O", "type": "string", "jsonPath": ".spec"}
    kind = kinds.make("g.io", "v1", "Thing", "things", namespaced=True, custom=True, printer_columns=(column,))
    obj = {"metadata": {"name": "x"}, "spec": {"b": ["<&>"], "a": 1}}
    assert columns.table(kind, [obj], 0)["rows"][0]["cells"][1] == '{"a":1,"b":["\\u003c\\u0026\\u003e"]}'


def test_every_column_says_what_it_means() -> None:
    """Each column of each kind has a text of its own or names the field of the API whose text it is."""
    texts = json.loads((columns._DATA / "columntexts.json").read_text())
    unsaid = [
        f"{version} {plural} {row[0]}"
        for version, tables in columns._table().items()
        for plural, rows in tables.items()
        for row in rows
        if row[0] not in texts["kinds"].get(plural, {}) and row[0] not in texts["shared"]
    ]
    assert not unsaid
    for said in (s for group in texts["kinds"].values() for s in group.values() if isinstance(s, list)):
        assert said[1] in schema.raw_definition(said[0])["properties"]


def test_texts_of_columns_come_from_the_api_where_it_is_described(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The text of a field stands under its column, none without descriptions; a column's own words stay."""
    made = {"io.k8s.api.core.v1.PodSpec": {"nodeName": "where it runs"}}
    monkeypatch.setattr(descriptions, "FILE", tmp_path / "d.z")
    for present in (False, True):
        if present:
            (tmp_path / "d.z").write_bytes(zlib.compress(json.dumps(made).encode()))
        columns._texts.cache_clear()
        assert columns._text("pods", "Node") == ("where it runs" if present else "")
        assert columns._text("pods", "Status").startswith("The aggregate status")
    columns._texts.cache_clear()
