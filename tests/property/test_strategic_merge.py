"""What strategic merge promises: the patch between two objects leads from one to the other, whatever they are."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k3s.api import schema
from k3s.api.errors import ApiError
from k3s.api.kinds import builtin
from k3s.api.patch import strategic_merge

POD = schema.definition_of(builtin("v1", "Pod"))
DEPLOYMENT = schema.definition_of(builtin("apps/v1", "Deployment"))

_texts = st.sampled_from(["a", "b", "c", "d"])
_maps = st.dictionaries(_texts, _texts, max_size=3)
_env = st.dictionaries(_texts, st.fixed_dictionaries({"value": _texts}), max_size=3)
_container = st.fixed_dictionaries({}, optional={"image": _texts, "args": st.lists(_texts, max_size=3), "env": _env})


def _listed(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Elements of a list by key; their own `env` as such a list, too."""
    out = []
    for name, rest in found.items():
        inner = {key: _listed(value) if key == "env" else value for key, value in rest.items()}
        out.append({"name": name, **{key: value for key, value in inner.items() if value != []}})
    return out


def _pod(labels: dict[str, str], containers: list[Any], finalizers: list[str], node: dict[str, str]) -> dict[str, Any]:
    meta = {"name": "p", "labels": labels, "finalizers": finalizers}
    spec = {"containers": containers, "nodeSelector": node}
    pruned = [{key: value for key, value in part.items() if value not in ([], {})} for part in (meta, spec)]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": pruned[0], "spec": pruned[1]}


pods = st.builds(
    _pod,
    _maps,
    st.dictionaries(_texts, _container, max_size=4).map(_listed),
    st.lists(_texts, unique=True, max_size=3),
    _maps,
)


def difference(node: Any, old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The patch from one object to the other, as kubectl writes it: with deletions and the order of every list."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if before == value:
            continue
        child = node.child(key)
        if isinstance(value, dict) and isinstance(before, dict):
            patch[key] = difference(child, before, value)
        elif isinstance(value, list) and isinstance(before, list) and "merge" in child.patch_strategies:
            patch.update(_lists(child, key, before, value))
        else:
            patch[key] = value
    return patch


def _lists(node: Any, key: str, old: list[Any], new: list[Any]) -> dict[str, Any]:
    by = node.merge_key
    if not by:
        patch: dict[str, Any] = {f"$setElementOrder/{key}": new}
        added = [value for value in new if value not in old]
        removed = [value for value in old if value not in new]
        patch |= {key: added} if added else {}
        return patch | ({f"$deleteFromPrimitiveList/{key}": removed} if removed else {})
    before = {element[by]: element for element in old}
    names = {element[by] for element in new}
    changes = [
        {by: element[by], **difference(node.items(), before.get(element[by], {}), element)}
        for element in new
        if before.get(element[by]) != element
    ]
    changes += [{by: name, "$patch": "delete"} for name in before if name not in names]
    patch = {f"$setElementOrder/{key}": [{by: element[by]} for element in new]}
    return patch | ({key: changes} if changes else {})


@settings(max_examples=150, deadline=None)
@given(old=pods, new=pods)
def test_a_patch_leads_from_one_object_to_the_other(old: Any, new: Any) -> None:
    """Values, deletions and order, in lists by key inside of lists by key too; and the inputs stay as they were."""
    patch = difference(POD, old, new)
    kept = copy.deepcopy((old, patch))
    assert strategic_merge(POD, old, patch) == new
    assert (old, patch) == kept


@settings(max_examples=60, deadline=None)
@given(old=pods, new=pods)
def test_a_patch_twice_is_a_patch_once(old: Any, new: Any) -> None:
    """What is there already is not made again, and what is gone is not missed."""
    patch = difference(POD, old, new)
    once = strategic_merge(POD, old, patch)
    assert strategic_merge(POD, once, patch) == once


@settings(max_examples=60, deadline=None)
@given(old=pods)
def test_an_empty_patch_changes_nothing(old: Any) -> None:
    """Neither does the patch between equals."""
    assert difference(POD, old, copy.deepcopy(old)) == {}
    assert strategic_merge(POD, old, {}) == old


@settings(max_examples=60, deadline=None)
@given(old=pods, new=pods)
def test_replace_and_delete_leave_nothing_of_before(old: Any, new: Any) -> None:
    """A map or a list that replaces is all there is; one that is deleted is empty."""
    spec = {**new["spec"], "$patch": "replace"}
    assert strategic_merge(POD, {**old, "spec": old["spec"]}, {"spec": spec})["spec"] == new["spec"]
    listed = [*new["spec"].get("containers", []), {"$patch": "replace"}]
    if "containers" in old["spec"]:
        replaced = strategic_merge(POD, old, {"spec": {"containers": listed}})
        assert replaced["spec"]["containers"] == new["spec"].get("containers", [])
    assert strategic_merge(POD, old, {"spec": {"$patch": "delete"}})["spec"] == {}


@settings(max_examples=60, deadline=None)
@given(old=pods, order=st.permutations(["a", "b", "c", "d"]))
def test_an_order_alone_only_moves(old: Any, order: list[str]) -> None:
    """The elements that the order names stand as it says, and nothing else happens to them."""
    containers = old["spec"].get("containers", [])
    patch = {"spec": {"$setElementOrder/containers": [{"name": name} for name in order]}}
    moved = strategic_merge(POD, old, patch)["spec"].get("containers", [])
    assert moved == sorted(containers, key=lambda container: order.index(container["name"]))


@settings(max_examples=60, deadline=None)
@given(before=_maps, after=_maps)
def test_only_what_is_retained_stays(before: dict[str, str], after: dict[str, str]) -> None:
    """Keys that the directive does not name go, whatever they are."""
    old = {"spec": {"strategy": {"type": "RollingUpdate", **before}}}
    strategy = {**after, "$retainKeys": sorted(after)}
    kept = strategic_merge(DEPLOYMENT, old, {"spec": {"strategy": strategy}})["spec"]["strategy"]
    assert kept == after


WRONG = [
    ({"spec": {"$patch": "bogus"}}, "unknown patch type: bogus in map: map[$patch:bogus]"),
    (
        {"spec": {"containers": [{"name": "a", "$patch": "bogus"}]}},
        "unknown patch type: bogus in map: map[$patch:bogus name:a]",
    ),
    ({"spec": {"containers": [{"$patch": "merge"}]}}, "merging lists cannot yet be specified in the patch"),
    (
        {"spec": {"containers": [{"image": "x"}]}},
        "map: map[image:x] does not contain declared merge key: name",
    ),
    (
        {"spec": {"containers": [{"image": "x", "$patch": "delete"}]}},
        "map: map[$patch:delete image:x] does not contain declared merge key: name",
    ),
    ({"spec": {"$setElementOrder/containers": "a"}}, "expected a []interface {}, but received a string"),
    (
        {
            "spec": {
                "$setElementOrder/containers": [{"name": "a"}, {"name": "b"}],
                "containers": [{"name": "b", "image": "x"}, {"name": "a", "image": "y"}],
            }
        },
        "The order in patch list:\n[map[image:x name:b] map[image:y name:a]]\n"
        " doesn't match $setElementOrder list:\n[map[name:a] map[name:b]]\n",
    ),
    ({"spec": {"strategy": {"$retainKeys": "a"}}}, "invalid patch format of retainKeys"),
]


@pytest.mark.parametrize(("patch", "told"), WRONG, ids=[told[:30] for _, told in WRONG])
def test_wrong_directives_are_told(patch: Any, told: str) -> None:
    """In upstream's words."""
    old = {"spec": {"containers": [{"name": "a", "image": "i"}], "strategy": {"type": "Recreate"}}}
    node = DEPLOYMENT if "strategy" in patch["spec"] else POD
    with pytest.raises(ApiError) as caught:
        strategic_merge(node, old, patch)
    assert caught.value.message == told
