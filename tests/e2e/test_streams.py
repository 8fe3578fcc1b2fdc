"""logs, exec, attach, cp and port-forward, with every version of kubectl: over WebSockets and over SPDY."""

from __future__ import annotations

import hashlib
import urllib.request
from pathlib import Path

import pytest
from tests.cluster import Kubectl
from tests.e2e.objects import pod

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]

# Says numbers, waits for a file, says the last one; and serves a page.
_SCRIPT = (
    "mkdir /www; echo hello > /www/index.html; httpd -p 8080 -h /www; "
    "for i in 1 2 3 4 5; do echo line $i; done; echo wrong >&2; "
    "while [ ! -e /tmp/go ]; do sleep 0.1; done; echo last; exec sleep 3600"
)
_CRASH = "echo run; exit 3"
_CAT = "echo ready; exec cat"


@pytest.fixture(scope="module")
def pods(kubectl: Kubectl) -> Kubectl:
    """Pods that talk, crash and listen."""
    kubectl.apply(
        pod("talk", _SCRIPT),
        pod("crash", _CRASH),
        pod("listen", _CAT, container={"stdin": True}),
        pod("shell", "exec sh", container={"stdin": True, "tty": True}),
    )
    kubectl("wait", "pod/talk", "pod/listen", "pod/shell", "--for=condition=Ready", "--timeout=60s")
    return kubectl


def test_logs_show_what_was_asked_for(pods: Kubectl) -> None:
    """tail, limit-bytes, timestamps, since and prefix choose and decorate lines; both streams are in it."""
    lines = [f"line {n}" for n in range(1, 6)]
    assert sorted(pods("logs", "talk").splitlines()[:6]) == [*lines, "wrong"]
    assert len(pods("logs", "talk", "--tail=2").splitlines()) == 2
    assert pods("logs", "talk", "--tail=0") == ""
    assert pods("logs", "talk", "--limit-bytes=3") in ("lin", "wro")
    assert pods("logs", "talk", "--since=1h") == pods("logs", "talk", "-c", "main")
    stamp, _, text = pods("logs", "talk", "--timestamps").splitlines()[0].partition(" ")
    assert stamp.startswith("20") and "T" in stamp and text in [*lines, "wrong"]
    assert pods("logs", "talk", f"--since-time={stamp}") == pods("logs", "talk")
    assert "[pod/talk/main] line 1" in pods("logs", "-l", "app=talk", "--prefix")


def test_logs_follow_to_the_last_line(pods: Kubectl) -> None:
    """-f shows a line as soon as it is written."""
    with pods.start("logs", "-f", "talk", "--tail=1") as following:
        following.line(lambda line: line in ("wrong", "line 5"))
        pods("exec", "talk", "--", "touch", "/tmp/go")
        following.line(lambda line: line == "last")


def test_logs_of_the_run_before(pods: Kubectl) -> None:
    """--previous shows the log of the container that crashed."""
    pods.until(
        "pod/crash",
        "-o",
        "jsonpath={.status.containerStatuses[0].restartCount}{'\\n'}",
        wanted=lambda line: line.isdecimal() and int(line) > 0,
    )
    assert pods("logs", "crash", "--previous") == "run\n"


def test_logs_refuse_what_is_not_there(pods: Kubectl) -> None:
    """Unknown containers and missing earlier runs are told."""
    assert "container nope is not valid for pod talk" in pods.run("logs", "talk", "-c", "nope", code=1).stderr
    message = pods.run("logs", "talk", "--previous", code=1).stderr
    assert 'previous terminated container "main" in pod "talk" not found' in message


def test_exec_passes_output_input_and_exit_codes(pods: Kubectl) -> None:
    """stdout and stderr stay apart, stdin arrives with its end, the exit code is the command's."""
    both = pods.run("exec", "talk", "--", "sh", "-c", "echo out; echo err >&2")
    assert (both.stdout, both.stderr) == ("out\n", "err\n")
    assert pods("exec", "-i", "talk", "--", "cat", input="one\ntwo\n") == "one\ntwo\n"
    assert pods.run("exec", "talk", "--", "sh", "-c", "exit 7", code=7).returncode == 7
    assert "exit code 7" in pods.run("exec", "talk", "--", "sh", "-c", "exit 7", code=7).stderr
    missing = pods.run("exec", "talk", "--", "/no/such", code=None)
    assert missing.returncode != 0 and "no such file" in missing.stderr


def test_exec_passes_much(pods: Kubectl) -> None:
    """Eight megabytes go in and come out as they are."""
    data = hashlib.sha256(b"seed").digest() * (8 * 1024 * 1024 // 32)
    wanted = hashlib.md5(data).hexdigest()
    assert wanted in pods("exec", "-i", "talk", "--", "md5sum", input=data)
    out = pods("exec", "talk", "--", "sh", "-c", "head -c 8388608 /dev/zero | tr '\\0' x")
    assert len(out) == 8 * 1024 * 1024


def test_exec_on_a_terminal(pods: Kubectl) -> None:
    """-it gives a terminal of the caller's size that takes what is typed; its exit code comes back."""
    typed = [("# ", "stty size; tty\n"), ("/dev/pts/", "exit 4\n")]
    code, shown = pods.on_terminal("exec", "-it", "talk", "--", "sh", typed=typed)
    assert code == 4, shown
    assert "40 100" in shown, shown


def test_attach_reaches_the_process(pods: Kubectl) -> None:
    """attach -i types into the container's own process and shows what it says."""
    with pods.start("attach", "-i", "listen") as attached:
        attached.type("ping\n")
        attached.line(lambda line: line == "ping")
    code, shown = pods.on_terminal("attach", "-it", "shell", typed=[("", "echo a$((40+2))b\n"), ("a42b", "exit\n")])
    assert "a42b" in shown, (code, shown)


def test_cp_both_ways(pods: Kubectl, tmp_path: Path) -> None:
    """A folder goes in and comes back with the same bytes."""
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "data").write_bytes(bytes(range(256)) * 4096)
    (folder / "text").write_text("hello\n")
    pods("cp", str(folder), "talk:/tmp/copied")
    assert pods("exec", "talk", "--", "cat", "/tmp/copied/text") == "hello\n"
    pods("cp", f"{pods.namespace}/talk:/tmp/copied", str(tmp_path / "out"))
    assert (tmp_path / "out" / "deep" / "data").read_bytes() == bytes(range(256)) * 4096


def test_port_forward_carries_requests(pods: Kubectl) -> None:
    """Several connections go through one port-forward, and a refused port does not end it."""
    with pods.start("port-forward", "pod/talk", ":8080") as forward:
        line = forward.line(lambda text: "Forwarding from 127.0.0.1" in text)
        port = line.split(":")[1].split()[0]
        for _ in range(5):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as answer:
                assert answer.read() == b"hello\n"
    with pods.start("port-forward", "pod/talk", ":8081") as forward:
        line = forward.line(lambda text: "Forwarding from 127.0.0.1" in text)
        port = line.split(":")[1].split()[0]
        with pytest.raises(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20)
        forward.line(lambda text: "refused" in text)


def test_streams_of_nothing_are_refused(pods: Kubectl) -> None:
    """Pods and containers that are not there give a plain error, at once."""
    assert 'pods "nope" not found' in pods.run("exec", "nope", "--", "true", code=1).stderr
    assert (
        "container nope is not valid for pod talk"
        in pods.run("exec", "talk", "-c", "nope", "--", "true", code=1).stderr
    )
    assert 'pods "nope" not found' in pods.run("port-forward", "pod/nope", "8080", code=1).stderr
