"""What crictl prints, as text made of the runtime's answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from k3s.base.protobuf import Codec
from k3s.cli.crictl import containers, gotemplate, images, output, pods, stats, words
from k3s.cli.crictl.session import Failed
from k3s.kubelet.runtime.connection import table

NOW = 1_000_000_000.0
_ID = "0123456789abcdef" * 4
_POD = "fedcba9876543210" * 4
_IMAGE = "sha256:" + "ab" * 32


def message(name: str, /, **fields: Any) -> dict[str, Any]:
    """An answer with every field, as it comes from the wire."""
    codec = Codec(table()["messages"], table()["enums"])
    return codec.decode(name, codec.encode(name, fields))


def container(name: str = "web", **more: Any) -> dict[str, Any]:
    labels = {"io.kubernetes.pod.name": "web-0", "io.kubernetes.pod.namespace": "default"}
    fields = {
        "id": _ID,
        "pod_sandbox_id": _POD,
        "metadata": {"name": name, "attempt": 2},
        "image": {"image": _IMAGE},
        "image_ref": _IMAGE,
        "state": "CONTAINER_RUNNING",
        "created_at": int((NOW - 3 * 3600) * 1e9),
        "labels": labels,
    }
    return message("Container", **{**fields, **more})


def pod(**more: Any) -> dict[str, Any]:
    meta = {"name": "web-0", "namespace": "default", "uid": "u1", "attempt": 0}
    fields = {"id": _POD, "metadata": meta, "created_at": int((NOW - 90) * 1e9), "labels": {"b": "2", "a": "1"}}
    return message("PodSandbox", **{**fields, **more})


def image(identifier: str, digests: list[str] | None = None, tags: list[str] | None = None, **more: Any) -> Any:
    return message("Image", id=identifier, repo_digests=digests or [], repo_tags=tags or [], **more)


def test_table_of_containers() -> None:
    """Columns of twenty letters at least; ids and images are shortened unless asked otherwise."""
    assert containers.listing([container()], NOW).splitlines() == [
        "CONTAINER           IMAGE               CREATED             STATE               NAME                "
        "ATTEMPT             POD ID              POD                 NAMESPACE",
        "0123456789abc       ababababababa       3 hours ago         Running             web                 "
        "2                   fedcba9876543       web-0               default",
    ]
    full = containers.listing([container(labels={})], NOW, full=True)
    assert full.splitlines()[1].split() == [
        *(_ID, _IMAGE, "3", "hours", "ago", "Running", "web", "2", _POD, "unknown", "unknown")
    ]
    assert " busybox:1  " in containers.listing([container()], NOW, tags={_IMAGE: "busybox:1"})


def test_containers_in_lines() -> None:
    """`ps -v`, and `inspect -o table`."""
    assert containers.details(container(), NOW) == (
        f"ID: {_ID}\nPodID: {_POD}\nNamespace: default\nName: web\nAttempt: 2\nState: Running\nImage: {_IMAGE}\n"
        "Created: 3 hours ago\nLabels:\n\tio.kubernetes.pod.name -> web-0\n"
        "\tio.kubernetes.pod.namespace -> default\n\n"
    )
    ended = message(
        "ContainerStatus",
        id=_ID,
        metadata={"name": "web", "attempt": 0},
        state="CONTAINER_EXITED",
        created_at=int((NOW - 60) * 1e9),
        started_at=int((NOW - 59) * 1e9),
        finished_at=int((NOW - 1) * 1e9),
        exit_code=3,
    )
    assert containers.summary({"status": ended, "info": {"b": "2", "a": "1"}}, NOW, verbose=True) == (
        f"ID: {_ID}\nName: web\nState: CONTAINER_EXITED\nCreated: About a minute ago\nStarted: 59 seconds ago\n"
        "Finished: 1 second ago\nExit Code: 3\nInfo: map[a:1 b:2]\n"
    )


def test_pods_in_a_table_and_in_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """`pods`, `pods -v` and `inspectp -o table`."""
    monkeypatch.setenv("TZ", "UTC")
    assert pods.listing([pod(state="SANDBOX_NOTREADY", runtime_handler="crun")], NOW).splitlines() == [
        "POD ID              CREATED              STATE               NAME                NAMESPACE           "
        "ATTEMPT             RUNTIME",
        "fedcba9876543       About a minute ago   NotReady            web-0               default             "
        "0                   crun",
    ]
    assert pods.details(pod()) == (
        f"ID: {_POD}\nName: web-0\nUID: u1\nNamespace: default\nStatus: Ready\n"
        "Created: 2001-09-09 01:45:10 +0000 UTC\nLabels:\n\ta -> 1\n\tb -> 2\nRuntime: (default)\n\n"
    )
    told = message(
        "PodSandboxStatus",
        id=_POD,
        metadata={"name": "web-0"},
        created_at=int(NOW * 1e9) + 500,
        network={"ip": "10.42.0.2", "additional_ips": [{"ip": "fd00::2"}]},
    )
    assert pods.summary({"status": told, "info": {}}, verbose=False) == (
        f"ID: {_POD}\nName: web-0\nAttempt: 0\nStatus: SANDBOX_READY\n"
        "Created: 2001-09-09 01:46:40.0000005 +0000 UTC\nIP Addresses: 10.42.0.2\nAdditional IP: fd00::2\n"
    )


def test_table_of_images() -> None:
    """A row a tag; what came by its digest has none."""
    rows = [
        image(
            _IMAGE, ["docker.io/library/web@sha256:" + "cd" * 32], ["docker.io/library/web:1", "web:2"], size=1991000
        ),
        image("sha256:" + "ef" * 32, ["docker.io/library/raw@sha256:" + "01" * 32], size=999),
    ]
    listed = images.listing(rows, digests=True, pinned=True).splitlines()
    assert listed[0].split() == ["IMAGE", "TAG", "DIGEST", "IMAGE", "ID", "SIZE", "PINNED"]
    assert [line.split() for line in listed[1:]] == [
        ["docker.io/library/web", "1", "cdcdcdcdcdcdc", "ababababababa", "1.99MB", "false"],
        ["web", "2", "cdcdcdcdcdcdc", "ababababababa", "1.99MB", "false"],
        ["docker.io/library/raw", "<none>", "0101010101010", "efefefefefefe", "999B", "false"],
    ]
    assert images.listing(rows[:1], full=True).splitlines()[1].split()[2] == _IMAGE


def _ids(found: list[Any]) -> str:
    return "".join(item["id"] for item in found)


_SOME = [
    image("1", ["docker.io/library/server@sha256:1"], ["docker.io/library/server:0.0.0"]),
    image("2", ["docker.io/library/busybox@sha256:2"], ["docker.io/library/busybox:1.2.0"]),
    image("3", ["localhost:5000/nginx@sha256:3"], ["localhost:5000/nginx:1.0.0"]),
    image("4", ["docker.io/library/app@sha256:4"]),
]


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        (["dangling=true"], "4"),
        (["dangling=false"], "123"),
        (["reference=busybox"], "2"),
        (["reference=docker.io", "reference=app|server"], "14"),
        (["before=localhost:5000/nginx:1.0.0"], "4"),
        (["before=1"], "234"),
        (["before=docker.io/library/busybox@sha256:2"], "34"),
        (["since=3"], "12"),
        (["since=docker.io/library/busybox:1.2.0"], "1"),
        (["since=3", "reference=busybox"], "2"),
        (["since=none"], "1234"),
    ],
)
def test_filters_of_images(filters: list[str], left: str) -> None:
    """Each filter works on what the one before has left."""
    assert _ids(images.filtered(_SOME, filters)) == left


def test_an_unknown_filter_of_images() -> None:
    """It is named, and so is a pattern that is none."""
    with pytest.raises(Failed, match="unknown filter flag: size=1"):
        images.filtered(_SOME, ["size=1"])
    with pytest.raises(Failed, match="error parsing regexp"):
        images.filtered(_SOME, ["reference=("])


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("busybox", "2"),
        ("busybox:1.2.0", "2"),
        ("busybox:2", ""),
        ("library/busybox", "2"),
        ("docker.io/library/app", "4"),
        ("docker.io/library/app@sha256:4", "4"),
        ("localhost:5000/nginx", "3"),
        ("localhost:5001/nginx", ""),
        ("", "1234"),
    ],
)
def test_images_by_name(name: str, left: str) -> None:
    """With and without tag or digest, in full or as Docker shortens it."""
    assert _ids(images.named(_SOME, name)) == left


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "Less than a second"),
        (1, "1 second"),
        (59.9, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (5300, "About an hour"),
        (5400, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (13 * 86400, "13 days"),
        (14 * 86400, "2 weeks"),
        (59 * 86400, "8 weeks"),
        (60 * 86400, "2 months"),
        (729 * 86400, "24 months"),
        (730 * 86400, "2 years"),
    ],
)
def test_ages(seconds: float, text: str) -> None:
    """One rough unit."""
    assert words.span(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0B"), (999, "999B"), (1000, "1kB"), (1234567, "1.235MB"), (104857600, "104.9MB"), (5 * 10**12, "5TB")],
)
def test_sizes(count: int, text: str) -> None:
    """Decimal units, four digits."""
    assert words.size(count) == text


def test_json_of_a_message() -> None:
    """Names in lowerCamelCase, long numbers as text, zero values there, missing messages not, fields in order."""
    text = output.document(output.plain("Container", container(image=None, labels={"b": "<", "a": ""})), "json")
    assert list(json.loads(text)) == [
        *("id", "podSandboxId", "metadata", "imageRef", "state", "createdAt", "labels", "annotations", "imageId")
    ]
    assert '"createdAt": "999989200000000000"' in text and '"annotations": {}' in text and '"b": "<"' in text
    resources = message("LinuxContainerResources", memory_limit_in_bytes=5)
    assert output.plain("LinuxContainerResources", resources)["hugepageLimits"] == []
    usage = message("CpuUsage", timestamp=1, usage_nano_cores={"value": 7})
    assert output.plain("CpuUsage", usage) == {"timestamp": "1", "usageNanoCores": {"value": "7"}}
    assert output.plain("KeyValue", {"key": "a", "value": b"x"}) == {"key": "a", "value": "eA=="}


def test_yaml_of_a_message() -> None:
    """Sorted keys; texts that would be read as something else are quoted; a document ends with an empty line."""
    value = {"b": ["1", "x: y"], "a": {"long": "line\nline", "no": "no", "empty": ""}}
    assert output.document(value, "yaml") == (
        'a:\n  empty: ""\n  long: |-\n    line\n    line\n  "no": "no"\nb:\n- "1"\n- \'x: y\'\n\n'
    )
    with pytest.raises(output.FormatError, match='unsupported output format "xml"'):
        output.document(value, "xml")


def test_status_for_inspecting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every field is there; times are times; what the runtime tells stands beside, as JSON where it is."""
    monkeypatch.setenv("TZ", "UTC")
    made = message("ContainerStatus", id=_ID, created_at=1_500_000_000, started_at=5, image={"image": "<x>"})
    told = output.with_info(containers.status(made), {"info": '{"pid":5}', "note": '"text"'})
    assert told["status"]["createdAt"] == "1970-01-01T00:00:01.5Z"
    assert told["status"]["startedAt"] == told["status"]["finishedAt"] == "0001-01-01T00:00:00Z"
    assert told["status"]["resources"] is None and told["status"]["user"] is None
    assert (told["info"], told["note"]) == ({"pid": 5}, "text")
    text = output.statuses([told], "json", "")
    assert '"image": "\\u003cx\\u003e"' in text and text.index('"annotations"') < text.index('"createdAt"')
    assert json.loads(output.statuses([told, told], "json", "")) == [told, told]
    assert output.statuses([told], "go-template", "{{.info.pid}}") == "5\n"
    features = message("RuntimeHandler", name="", features={"user_namespaces": True})
    assert output.struct("RuntimeHandler", features) == {"features": {"user_namespaces": True}}


def test_what_is_used() -> None:
    """The processor's share between two samples; idle and new containers are left out."""

    def sample(identifier: str, cpu: int, at: int, used: int) -> dict[str, Any]:
        return message(
            "ContainerStats",
            attributes={"id": identifier, "metadata": {"name": "n" + identifier}},
            cpu={"timestamp": at, "usage_core_nano_seconds": {"value": cpu}},
            memory={"working_set_bytes": {"value": used}},
            writable_layer={"used_bytes": {"value": 4096}, "inodes_used": {"value": 3}},
        )

    before = [sample("b", 100, 1000, 5), sample("a", 0, 0, 0)]
    after = [sample("b", 600, 2000, 2048), sample("a", 0, 0, 0), sample("new", 1, 1, 1)]
    listed = stats.containers_table(before, after, everything=False).splitlines()
    assert listed[0].split() == ["CONTAINER", "NAME", "CPU", "%", "MEM", "DISK", "INODES", "SWAP"]
    assert [line.split() for line in listed[1:]] == [["b", "nb", "50.00", "2.048kB", "4.096kB", "3", "0B"]]
    listed = stats.containers_table(before, after, everything=True).splitlines()
    assert [line.split()[:3] for line in listed[1:]] == [["a", "na", "0.00"], ["b", "nb", "50.00"]]
    with pytest.raises(Failed, match="cpu stat is not updated during sample"):
        stats.containers_table(before, before, everything=False)

    def of_pod(cpu: int, at: int) -> dict[str, Any]:
        spent = {"timestamp": at, "usage_core_nano_seconds": {"value": cpu}}
        linux = {"cpu": spent, "memory": {"working_set_bytes": {"value": 10**6}}}
        return message("PodSandboxStats", attributes={"id": _POD, "metadata": {"name": "web-0"}}, linux=linux)

    assert stats.pods_table([of_pod(0, 0)], [of_pod(25, 100), message("PodSandboxStats")]).splitlines() == [
        "POD                 POD ID              CPU %               MEM",
        "web-0               fedcba9876543       25.00               1MB",
    ]


def test_file_systems() -> None:
    """`imagefsinfo -o table`."""
    usage = {"timestamp": 7, "used_bytes": {"value": 1500}, "inodes_used": {"value": 2}, "fs_id": {"mountpoint": "/x"}}
    answer = message("ImageFsInfoResponse", image_filesystems=[usage])
    assert images.filesystems(answer) == (
        "Container Filesystem \nImage Filesystem \nTimeStamp[0]: 7\nDisk[0]: 1.5kB\nInodes[0]: 2\nMountpoint[0]: /x\n"
    )


_VALUE = {"name": "web", "labels": {"b": "2", "a": "1"}, "ports": [80, 443], "on": True, "none": None, "n": {"x": 5}}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain", "plain"),
        ("{{.name}}-{{ .n.x }}", "web-5"),
        ("{{.}}", "map[labels:map[a:1 b:2] n:map[x:5] name:web none:<no value> on:true ports:[80 443]]"),
        ("{{range .ports}}{{.}},{{end}}", "80,443,"),
        ("{{range $i, $p := .ports}}{{$i}}={{$p}} {{end}}", "0=80 1=443 "),
        ("{{range $k, $v := .labels}}{{$k}}{{$v}}{{end}}", "a1b2"),
        ("{{range .none}}x{{else}}nothing{{end}}", "nothing"),
        ("{{if .on}}yes{{else}}no{{end}}", "yes"),
        ("{{if .none}}a{{else if eq .name `web`}}b{{else}}c{{end}}", "b"),
        ("{{with .n}}{{.x}} {{$.name}}{{end}}", "5 web"),
        ("{{with $x := .n.x}}{{$x}}{{end}}", "5"),
        ("{{$y := .name}}{{$y}}", "web"),
        ("a {{- .name -}} b", "awebb"),
        ("{{/* a comment */}}x", "x"),
        ("{{json .labels}}", '{"a":"1","b":"2"}\n'),
        ('{{.name | upper | printf "%-5s|%d|%q" | len}}', None),
        ('{{printf "%-5s|%d|%q|%v" .name 7 "x" .on}}', 'web  |7|"x"|true'),
        ('{{index .labels "a"}}{{index .ports 1}}{{index .labels "none"}}', "1443"),
        ("{{len .ports}}{{len .name}}", "23"),
        ("{{and .on .name}}{{or .none .name}}{{not .on}}", "webwebfalse"),
        ('{{if and (eq .name "web") (gt .n.x 4)}}both{{end}}', "both"),
        ("{{(index .ports 0)}}", "80"),
        ('{{title .name}}{{lower "ABC"}}', "Webabc"),
        ("{{true}}{{-3}}", "true-3"),
        ("{{println .name 1}}", "web 1\n"),
    ],
)
def test_templates(template: str, text: str | None) -> None:
    """Go's templates, as far as they are used here."""
    if text is None:
        with pytest.raises(gotemplate.TemplateError):
            gotemplate.render(template, _VALUE)
    else:
        assert gotemplate.render(template, _VALUE) == text


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{.nothing}}", 'map has no entry for key "nothing"'),
        ("{{.name.x}}", "can't evaluate field x"),
        ("{{nothing .}}", 'function "nothing" not defined'),
        ("{{range .ports}}", "range"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{.name", "unclosed action"),
        ("{{}}", "missing value for command"),
        ("{{$x}}", "undefined variable"),
        ("{{(.name}}", "unclosed left paren"),
        ("{{.name ?}}", "unexpected"),
        ("{{index .ports 9}}", "error calling index"),
        ("{{.name .on}}", "can't give argument to non-function"),
    ],
)
def test_wrong_templates(template: str, told: str) -> None:
    """What is wrong is told."""
    with pytest.raises(gotemplate.TemplateError) as error:
        gotemplate.render(template, _VALUE)
    assert told in str(error.value)
