"""What request lines mean."""

from __future__ import annotations

import pytest

from k3s.apiserver.request import Targets, parse, truth


@pytest.mark.parametrize(
    ("method", "target", "wanted"),
    [
        ("GET", "/api/v1/pods", ("list", "", "v1", "pods", "", "", "")),
        ("GET", "/api/v1/pods?watch=1", ("watch", "", "v1", "pods", "", "", "")),
        ("GET", "/api/v1/watch/namespaces/a/pods", ("watch", "", "v1", "pods", "", "a", "")),
        ("GET", "/api/v1/namespaces/a", ("get", "", "v1", "namespaces", "", "a", "a")),
        ("GET", "/api/v1/namespaces/a/pods/b", ("get", "", "v1", "pods", "", "a", "b")),
        ("GET", "/api/v1/namespaces/a/pods/b/", ("get", "", "v1", "pods", "", "a", "b")),
        ("HEAD", "/api/v1/nodes/n", ("get", "", "v1", "nodes", "", "", "n")),
        ("PUT", "/api/v1/namespaces/a/finalize", ("update", "", "v1", "namespaces", "finalize", "a", "a")),
        (
            "PATCH",
            "/apis/apps/v1/namespaces/a/deployments/d/scale",
            ("patch", "apps", "v1", "deployments", "scale", "a", "d"),
        ),
        (
            "DELETE",
            "/apis/apps/v1/namespaces/a/deployments",
            ("deletecollection", "apps", "v1", "deployments", "", "a", ""),
        ),
        ("GET", "/api/v1/pods?fieldSelector=metadata.name%3Dx", ("list", "", "v1", "pods", "", "", "x")),
    ],
)
def test_resources(method: str, target: str, wanted: tuple[str, ...]) -> None:
    """Method and path give verb, group, version, resource, subresource, namespace and name."""
    i = parse(method, target).info
    assert (i.verb, i.group, i.version, i.resource, i.subresource, i.namespace, i.name) == wanted
    assert i.is_resource


@pytest.mark.parametrize(
    "target", ["/", "/healthz", "/api", "/api/v1", "/apis/apps", "/apis/apps/v1/", "/apis/apps/v1//", "*"]
)
def test_other_paths(target: str) -> None:
    """Everything else is asked for as a path, with the method as its verb."""
    info = parse("GET", target).info
    assert not info.is_resource
    assert info.verb == "get"


def test_paths_are_neither_cleaned_nor_resolved() -> None:
    """What is strange is still authorized as what it asks for; slashes at the end do not count."""
    info = parse("GET", "//api/v1/pods").info
    assert (info.verb, info.resource, info.strange) == ("list", "pods", True)
    info = parse("GET", "/api/v1/namespaces/a//pods").info
    assert (info.namespace, info.resource, info.name, info.strange) == ("a", "", "pods", True)
    info = parse("GET", "/api/v1/../..").info
    assert (info.resource, info.name, info.strange) == ("..", "..", False)
    info = parse("GET", "/api/v1/namespaces%2Fa%2Fpods//").info
    assert (info.verb, info.namespace, info.resource, info.strange) == ("list", "a", "pods", False)
    info = parse("GET", "/api/v1/nodes/n/proxy/a//b/").info
    assert (info.rest, info.strange) == ("a//b/", False)
    assert parse("GET", "https://host:6443/api/v1/pods?a=b").info.resource == "pods"


def test_query_keeps_every_value() -> None:
    """The first value counts, all of them are kept in order (exec has one `command` per word)."""
    found = parse("POST", "/api/v1/namespaces/a/pods/b/exec?command=ls&command=-l&tty")
    assert found.query == {"command": "ls", "tty": ""}
    assert found.pairs == (("command", "ls"), ("command", "-l"), ("tty", ""))


def test_proxy_keeps_the_rest() -> None:
    """What follows `/proxy` is the backend's path."""
    info = parse("GET", "/api/v1/nodes/n/proxy/stats/summary").info
    assert (info.subresource, info.rest) == ("proxy", "stats/summary")


def test_memo_is_bounded() -> None:
    """A request line that came before is not parsed again; the memory of them has an end."""
    targets = Targets()
    assert targets.get("GET", "/api/v1/pods") is targets.get("GET", "/api/v1/pods")
    for number in range(10000):
        targets.get("GET", f"/api/v1/namespaces/a/pods/{number}")
    assert len(targets._memo) <= 4096


@pytest.mark.parametrize(("text", "wanted"), [(None, False), ("", True), ("0", False), ("False", False), ("no", True)])
def test_truth(text: str | None, wanted: bool) -> None:
    """Only absence, `false` and `0` are false."""
    assert truth(text) is wanted
