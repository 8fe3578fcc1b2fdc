"""Label and field selectors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3s.api import selectors
from k3s.api.selectors import Requirement, check_fields, from_object, parse_fields, parse_labels

LABELS = {"app": "web", "tier": "2", "empty": ""}


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("", True),
        ("app", True),
        ("!app", False),
        ("app=web,tier==2", True),
        ("app!=web", False),
        ("other!=x", True),
        ("app in (web, db),tier notin (3)", True),
        ("other notin (a)", True),
        ("empty=", True),
        ("empty in (,x)", True),
        ("tier>1,tier<3", True),
        ("tier>2", False),
        ("app>1", False),
        ("in", False),
    ],
)
def test_label_texts(text: str, selected: bool) -> None:
    """Each form of requirement, fulfilled or not."""
    assert parse_labels(text).matches(LABELS) is selected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a=b,", "found '', expected: identifier after ','"),
        ("a in x", "unable to parse requirement: found 'x' expected: '('"),
        ("a===b", "unable to parse requirement: found '=', expected: identifier"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("a gt x", "unable to parse requirement: found 'gt', expected: in, notin, =, ==, !=, gt, lt"),
        (
            "x" * 64 + "=1",
            f'unable to parse requirement: <nil>: Invalid value: "{"x" * 64}": name part must be no more than 63 bytes',
        ),
    ],
)
def test_wrong_label_texts(text: str, why: str) -> None:
    """Errors are worded as recorded from the API server."""
    with pytest.raises(selectors.SelectorError) as caught:
        parse_labels(text)
    assert caught.value.message == why
    assert caught.value.code == 400


def test_selector_objects() -> None:
    """None selects nothing, an empty object everything, and expressions mean what their texts do."""
    assert not from_object(None).matches({})
    assert from_object({}).is_everything
    selector = from_object(
        {
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["1", "2"]},
                {"key": "gone", "operator": "DoesNotExist"},
            ],
        }
    )
    assert selector == parse_labels("app=web,!gone,tier in (1,2)")
    assert selector.matches(LABELS)
    assert selector.required() == {"app": "web"}
    with pytest.raises(selectors.SelectorError, match='"Bad" is not a valid label selector operator'):
        from_object({"matchExpressions": [{"key": "a", "operator": "Bad"}]})


keys = st.from_regex(r"[a-z]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)
values = st.from_regex(r"([A-Za-z0-9]{0,5})?", fullmatch=True)
requirements = st.one_of(
    st.builds(Requirement, keys, st.sampled_from(["=", "!=", "=="]), st.tuples(values)),
    st.builds(Requirement, keys, st.sampled_from(["exists", "!"])),
    st.builds(
        Requirement,
        keys,
        st.sampled_from(["in", "notin"]),
        st.lists(values, min_size=1, max_size=4, unique=True).filter(any).map(lambda v: tuple(sorted(v))),
    ),
)


@given(st.lists(requirements, max_size=5), st.dictionaries(keys, values, max_size=5))
def test_printing_and_reading(given_requirements: list[Requirement], labels: dict[str, str]) -> None:
    """A printed selector reads as one that selects the same."""
    selector = selectors.LabelSelector(tuple(sorted(given_requirements, key=lambda r: r.key)))
    again = parse_labels(str(selector))
    assert again == selector
    assert again.matches(labels) == all(r.matches(labels) for r in given_requirements)


@given(st.text(alphabet="ab=!<>(), in\\", max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text makes the readers fail in another way than by SelectorError."""
    for read in (parse_labels, parse_fields):
        try:
            read(text)
        except selectors.SelectorError as error:
            assert error.message


POD = {
    "kind": "Pod",
    "metadata": {"name": "a", "namespace": "n"},
    "spec": {"nodeName": "n1", "hostNetwork": True},
    "status": {"phase": "Running"},
}


def test_fields_of_pods() -> None:
    """The fields of pods, the old name of the node among them."""

    def select(text: str) -> bool:
        return check_fields(parse_fields(text), "", "Pod").matches(POD)

    assert select("metadata.name=a,metadata.namespace==n,status.phase!=Pending")
    assert select("spec.host=n1")
    assert select("spec.hostNetwork=true,spec.schedulerName=,status.podIP=")
    assert not select("spec.nodeName=")
    assert parse_fields("spec.nodeName=n1").required("spec.nodeName") == "n1"


def test_fields_of_other_kinds() -> None:
    """Numbers and booleans compare as text, absent ones as their zero; events answer to the names of both groups."""
    assert check_fields(parse_fields("spec.unschedulable=false"), "", "Node").matches({"kind": "Node"})
    assert check_fields(parse_fields("status.successful=0"), "batch", "Job").matches({"kind": "Job"})
    event = {"kind": "Event", "involvedObject": {"name": "x"}, "source": {"component": "kubelet"}}
    assert check_fields(parse_fields("regarding.name=x"), "events.k8s.io", "Event").matches(event)
    assert check_fields(parse_fields("involvedObject.name=x,source=kubelet"), "", "Event").matches(event)
    custom = ("spec.color",)
    assert check_fields(parse_fields("spec.color=red"), "g", "Widget", custom).matches({"spec": {"color": "red"}})


@pytest.mark.parametrize(
    ("text", "group", "kind", "why"),
    [
        ("spec.nope=1", "", "Pod", "field label not supported: spec.nope"),
        (
            "data.a=b",
            "",
            "ConfigMap",
            '"data.a" is not a known field selector: only "metadata.name", "metadata.namespace"',
        ),
        ("a", "", "Pod", "invalid selector: 'a'; can't understand 'a'"),
    ],
)
def test_wrong_fields(text: str, group: str, kind: str, why: str) -> None:
    """Errors are worded as recorded from the API server."""
    with pytest.raises(selectors.SelectorError) as caught:
        check_fields(parse_fields(text), group, kind)
    assert caught.value.message == why
