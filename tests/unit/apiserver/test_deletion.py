"""What a DELETE does to an object."""

from __future__ import annotations

from typing import Any

import pytest
from tests.fakes.server import Caller, serving

from k3s.api.errors import ApiError, Conflict, Invalid
from k3s.api.kinds import builtin
from k3s.api.object import Object
from k3s.apiserver import deletion
from k3s.apiserver.deletion import DeleteOptions
from k3s.apiserver.identity import User
from k3s.apiserver.strategies.core import NamespaceStrategy
from k3s.apiserver.strategies.pod import PodStrategy
from k3s.apiserver.strategy import Context, Strategy

POD, MAP, SPACE = builtin("v1", "Pod"), builtin("v1", "ConfigMap"), builtin("v1", "Namespace")
NOW = 1_800_000_000.0


def context(kind: Any = POD) -> Context:
    return Context(kind, "d", "x", User("u"), NOW, "delete")


def pod(node: str = "n", **meta: Any) -> Object:
    spec = {"terminationGracePeriodSeconds": 30, **({"nodeName": node} if node else {})}
    return {"metadata": {"name": "x", "uid": "u1", "resourceVersion": "7", "generation": 1, **meta}, "spec": spec}


def test_pod_on_a_node_gets_its_grace() -> None:
    """A running pod stays, marked, with the time that it has; the mark is a new generation."""
    stored, last = deletion.decide(PodStrategy(POD), context(), pod(), DeleteOptions())
    assert stored is last
    assert last["metadata"]["deletionGracePeriodSeconds"] == 30
    assert last["metadata"]["deletionTimestamp"] == "2027-01-15T08:00:30Z"
    assert last["metadata"]["generation"] == 2


def test_pod_without_a_node_goes_at_once() -> None:
    """Nobody has to stop anything."""
    stored, last = deletion.decide(PodStrategy(POD), context(), pod(node=""), DeleteOptions())
    assert stored is None
    assert last["metadata"]["deletionGracePeriodSeconds"] == 0


def test_grace_can_only_shrink() -> None:
    """A second delete may shorten the time, not lengthen it; none at all removes the pod."""
    strategy = PodStrategy(POD)
    marked, _ = deletion.decide(strategy, context(), pod(), DeleteOptions(grace_s=20))
    assert marked is not None
    same, _ = deletion.decide(strategy, context(), marked, DeleteOptions(grace_s=40))
    assert same is marked
    shorter, _ = deletion.decide(strategy, context(), marked, DeleteOptions(grace_s=5))
    assert shorter is not None
    assert shorter["metadata"]["deletionTimestamp"] == "2027-01-15T08:00:05Z"
    assert deletion.decide(strategy, context(), marked, DeleteOptions(grace_s=0))[0] is None
    negative, _ = deletion.decide(strategy, context(), marked, DeleteOptions(grace_s=-5))
    assert negative is not None and negative["metadata"]["deletionGracePeriodSeconds"] == 1
    assert deletion.decide(strategy, context(), negative, DeleteOptions(grace_s=-1))[0] is negative


def test_a_deletion_under_way_takes_no_other_way() -> None:
    """How dependents go is said when a graceful deletion begins, or when its time gets shorter."""
    strategy = PodStrategy(POD)
    marked, _ = deletion.decide(strategy, context(), pod(finalizers=["orphan"]), DeleteOptions(grace_s=20))
    assert marked is not None
    for options in (DeleteOptions(propagation="Foreground"), DeleteOptions(grace_s=20, propagation="Background")):
        assert deletion.decide(strategy, context(), marked, options) == (marked, marked)
    shorter, _ = deletion.decide(strategy, context(), marked, DeleteOptions(grace_s=5, propagation="Foreground"))
    assert shorter is not None and shorter["metadata"]["finalizers"] == ["foregroundDeletion"]


def test_no_finalizer_of_the_collector_holds_an_event() -> None:
    strategy = Strategy(builtin("v1", "Event"))
    obj = {"metadata": {"name": "x", "uid": "u1", "finalizers": ["orphan"]}}
    for propagation in ("", "Orphan", "Foreground"):
        assert deletion.decide(strategy, context(MAP), obj, DeleteOptions(propagation=propagation))[0] is None


def test_finalizers_hold() -> None:
    """An object with finalizers stays until an update takes the last one away."""
    strategy = Strategy(MAP)
    obj = {"metadata": {"name": "x", "uid": "u1", "finalizers": ["a/b"]}}
    stored, _ = deletion.decide(strategy, context(MAP), obj, DeleteOptions())
    assert stored is not None
    free = {**stored, "metadata": {k: v for k, v in stored["metadata"].items() if k != "finalizers"}}
    assert not deletion.finished(strategy, stored, stored)
    assert deletion.finished(strategy, stored, free)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (DeleteOptions(propagation="Foreground"), ["a/b", "foregroundDeletion"]),
        (DeleteOptions(propagation="Orphan"), ["a/b", "orphan"]),
        (DeleteOptions(orphan=True), ["a/b", "orphan"]),
        (DeleteOptions(propagation="Background"), ["a/b"]),
    ],
)
def test_propagation(options: DeleteOptions, wanted: list[str]) -> None:
    """The garbage collector is told by finalizers."""
    assert deletion.collector_finalizers(["a/b"], options) == wanted


def test_background_takes_foreground_back() -> None:
    """A delete in the background after one in the foreground does not wait for dependents."""
    assert deletion.collector_finalizers(["foregroundDeletion"], DeleteOptions(propagation="Background")) == []


def test_preconditions() -> None:
    """uid and resourceVersion have to be those of the object."""
    for options in (DeleteOptions(uid="other"), DeleteOptions(revision="1")):
        with pytest.raises(Conflict, match="does not match"):
            deletion.decide(PodStrategy(POD), context(), pod(), options)


def test_namespace_terminates() -> None:
    """A namespace stays until its spec has no finalizers, and says so in its phase."""
    obj = {"metadata": {"name": "x", "uid": "u"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
    stored, last = deletion.decide(NamespaceStrategy(SPACE), context(SPACE), obj, DeleteOptions())
    assert stored is last
    assert last["status"] == {"phase": "Terminating"}
    assert "deletionGracePeriodSeconds" not in last["metadata"]


def test_options_are_checked() -> None:
    """Unknown policies, and old and new words for the same together, are refused."""
    for body in ({"propagationPolicy": "Sideways"}, {"propagationPolicy": "Orphan", "orphanDependents": True}):
        with pytest.raises(Invalid):
            deletion.parse(body, {})


UNSAFE = "ignoreStoreReadErrorWithClusterBreakingPotential"


def test_options_are_those_of_the_body_or_of_the_query() -> None:
    """With a body the query says nothing, however little the body says."""
    query = {"propagationPolicy": "Orphan", "gracePeriodSeconds": "5", UNSAFE: "false"}
    assert deletion.parse(None, query) == DeleteOptions(grace_s=5, propagation="Orphan")
    assert deletion.parse({}, query) == DeleteOptions()
    assert deletion.parse({UNSAFE: True}, {}) == DeleteOptions()
    assert deletion.parse(None, {"orphanDependents": "0"}) == DeleteOptions(orphan=False)
    with pytest.raises(Invalid, match=r"cannot be set together with \.propagationPolicy"):
        deletion.parse(None, {UNSAFE: "", "propagationPolicy": "Orphan"})


def test_who_asks_in_the_old_way_is_told_that_it_takes_time(run) -> None:  # type: ignore[no-untyped-def]
    """orphanDependents=false of what a finalizer holds: 202; all other ways: 200."""

    async def body() -> None:
        async with serving() as server:
            caller, path = Caller(server.ports[0]), "/api/v1/namespaces/default/configmaps"
            await caller.call("POST", path, {"metadata": {"name": "a", "finalizers": ["a.b/c"]}})
            for options, code in (({"orphanDependents": False}, 202), ({"propagationPolicy": "Foreground"}, 200)):
                status, found = await caller.call("DELETE", f"{path}/a", options)
                assert (status, "deletionTimestamp" in found["metadata"]) == (code, True)
            await caller.call("POST", path, {"metadata": {"name": "b"}})
            assert (await caller.call("DELETE", f"{path}/b", {"orphanDependents": False}))[0] == 200

    run(body())


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        ({"dryRun": ["All", "Some"]}, 422, 'dryRun: Unsupported value: ["All","Some"]: supported values: "All"'),
        ({"kind": "Pod", "apiVersion": "v1"}, 500, 'no kind "Pod" is registered for version "v1"'),
        (
            {"gracePeriodSeconds": "x"},
            500,
            "cannot unmarshal string into Go struct field DeleteOptions.grace",
        ),
        ([], 500, "cannot unmarshal array into Go value of type struct"),
        ({UNSAFE: 1}, 500, f"cannot unmarshal number into Go struct field DeleteOptions.{UNSAFE} of type bool"),
        (
            {UNSAFE: True, "gracePeriodSeconds": 0, "preconditions": {}},
            422,
            f"[{UNSAFE}: Invalid value: true: cannot be set together with .gracePeriodSeconds, "
            f"{UNSAFE}: Invalid value: true: cannot be set together with .preconditions]",
        ),
        (
            {"propagationPolicy": "X", "orphanDependents": True},
            422,
            "cannot be both set, propagationPolicy",
        ),
    ],
)
def test_a_body_that_says_nothing_about_a_deletion_deletes_nothing(body: Any, code: int, text: str) -> None:
    """Options that are none, or of other types, are refused."""
    with pytest.raises(ApiError) as caught:
        deletion.parse(body, {})
    assert (caught.value.code, text in caught.value.message) == (code, True), caught.value.message
