"""The table of kinds."""

from __future__ import annotations

import pytest

from k3s.api import kinds
from k3s.api.kinds import REGISTRY, builtin


def test_every_row_is_found_by_url_and_by_kind() -> None:
    """Both indexes lead to the same row."""
    rows = REGISTRY.all()
    assert len(rows) == 68
    for row in rows:
        assert REGISTRY.by_resource(row.group, row.version, row.plural) is row
        assert builtin(row.api_version, row.kind) is row


def test_paths_and_keys() -> None:
    """URLs have the prefix of the core group or of a named one; keys have the group in every case."""
    pods, nodes = builtin("v1", "Pod"), builtin("v1", "Node")
    deployments = builtin("apps/v1", "Deployment")
    assert pods.path("ns", "a", "log") == "/api/v1/namespaces/ns/pods/a/log"
    assert pods.path() == "/api/v1/pods"
    assert nodes.path("", "n") == "/api/v1/nodes/n"
    assert deployments.path("ns") == "/apis/apps/v1/namespaces/ns/deployments"
    assert pods.key("ns", "a") == "/registry/core/pods/ns/a"
    assert nodes.key("", "n") == "/registry/core/nodes/n"
    assert deployments.prefix("ns") == "/registry/apps/deployments/ns/"


def test_versions_of_one_kind_share_storage() -> None:
    """Both autoscalers and both events lie under one prefix, in one version."""
    for first, second in (("v1", "events.k8s.io/v1"), ("autoscaling/v2", "autoscaling/v1")):
        kind = "Event" if first == "v1" else "HorizontalPodAutoscaler"
        a, b = builtin(first, kind), builtin(second, kind)
        assert a.storage_prefix == b.storage_prefix
        assert REGISTRY.storage_kind(b) is a
        assert a.is_storage_version
        assert not b.is_storage_version
        assert a in REGISTRY.stored()
        assert b not in REGISTRY.stored()


def test_what_is_computed_is_not_stored() -> None:
    """Reviews and bindings have no place in the datastore; bodies of subresources are not served at all."""
    assert not builtin("authorization.k8s.io/v1", "SubjectAccessReview").stored
    assert not builtin("v1", "Binding").stored
    assert not builtin("autoscaling/v1", "Scale").stored
    assert builtin("autoscaling/v1", "Scale") not in REGISTRY.all()
    with pytest.raises(KeyError):
        builtin("v1", "Nothing")


def test_custom_kinds_come_and_go_on_a_copy() -> None:
    """A copy serves more than the original, in the order of discovery, and returns to what it was."""
    registry = REGISTRY.copy()
    before = registry.groups()
    old = kinds.make("a.io", "v1beta1", "Thing", "things", namespaced=True, custom=True, storage=("a.io", "v1"))
    new = kinds.make("a.io", "v1", "Thing", "things", namespaced=True, custom=True)
    registry.add(old)
    registry.add(new)
    assert registry.groups()[-1] == ("a.io", ("v1", "v1beta1"))
    assert registry.storage_kind(old) is new
    assert REGISTRY.by_kind("a.io", "v1", "Thing") is None
    registry.remove(old)
    registry.remove(new)
    assert registry.groups() == before


def test_version_order() -> None:
    """General availability before beta before alpha, higher numbers first, other names last."""
    names = ["v1alpha1", "v2", "foo", "v1beta2", "v1", "v10", "v1beta10", "v11alpha2"]
    expected = ["v10", "v2", "v1", "v1beta10", "v1beta2", "v11alpha2", "v1alpha1", "foo"]
    assert sorted(names, key=kinds.version_rank) == expected
