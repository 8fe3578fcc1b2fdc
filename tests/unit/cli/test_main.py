"""One entry: the first word or the name it is called by picks the command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from k3s import VERSION
from k3s.cli import ctr, kubectl, main, uninstall
from k3s.cli.crictl import command as crictl

_COMMANDS = ("server", "agent", "kubectl", "crictl", "ctr", "check-config", "completion", "doctor", "sbom", "uninstall")


def ran(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main.main(list(words))
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, out, err


@pytest.mark.parametrize("words", [(), ("-h",), ("--help",), ("help",)])
def test_usage(capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    """Without a command, or when asked, every command is listed."""
    code, out, err = ran(capsys, "k3s", *words)
    assert (code, err) == (0, "")
    assert all(f"  {command} " in out for command in _COMMANDS)


@pytest.mark.parametrize("word", ["-v", "--version", "version"])
def test_version(capsys: pytest.CaptureFixture[str], word: str) -> None:
    """The first line is `k3s version …`, as scripts expect."""
    code, out, _ = ran(capsys, "k3s", word)
    assert code == 0 and out.splitlines()[0] == f"k3s version {VERSION}"


@pytest.mark.parametrize("personality", ["server", "agent"])
def test_help_of_a_command(capsys: pytest.CaptureFixture[str], personality: str) -> None:
    """`k3s server --help` tells its options and nothing else happens."""
    code, out, err = ran(capsys, "k3s", personality, "--help")
    assert (code, err) == (0, "")
    assert f"usage: k3s {personality}" in out and "--data-dir, -d" in out
    assert ("--tls-san" in out) == (personality == "server")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("frobnicate",), "Unknown command 'frobnicate'"),
        (("etcd-snapshot",), "not built yet"),
        (("server", "--no-such-flag"), "Unknown flag --no-such-flag"),
        (("server", "--https-listen-port=0"), "--https-listen-port"),
        (("server", "extra"), "'extra'"),
        (("server", "--rootless"), "Option --rootless is refused"),
        (("server", "--log=/no/such/folder/log"), "--log"),
        (("agent", "--cluster-cidr=10.0.0.0/8"), "--cluster-cidr"),
        (("uninstall", "--everything"), "'--everything'"),
    ],
)
def test_wrong_requests(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], part: str) -> None:
    """One line that names what is wrong, exit code 2."""
    code, out, err = ran(capsys, "k3s", *words)
    assert (code, out) == (2, "")
    assert err.startswith("k3s: ") and err.count("\n") == 1 and part in err


@pytest.mark.parametrize("name", ["kubectl", "ctr", "crictl"])
def test_called_by_another_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A link called kubectl, ctr or crictl is that command, all words are its own."""
    seen: list[list[str]] = []

    def run(args: list[str]) -> int:
        seen.append(args)
        return 7

    monkeypatch.setattr({"kubectl": kubectl, "ctr": ctr, "crictl": crictl}[name], "main", run)
    with pytest.raises(SystemExit) as ended:
        main.main([f"/usr/local/bin/{name}", "version", "--help"])
    assert ended.value.code == 7 and seen == [["version", "--help"]]


def test_uninstall_of_a_folder_in_use(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is removed below a running server or agent; without root nothing is removed at all."""
    from k3s.run.lock import hold

    (tmp_path / "server").mkdir()
    hold(tmp_path / "server")
    monkeypatch.setattr(uninstall.os, "geteuid", lambda: 0)
    code, _, err = ran(capsys, "k3s", "uninstall", f"--data-dir={tmp_path}")
    assert code == 1 and f"k3s server still runs on {tmp_path}" in err
    monkeypatch.setattr(uninstall.os, "geteuid", lambda: 1000)
    code, _, err = ran(capsys, "k3s", "uninstall", f"--data-dir={tmp_path}")
    assert code == 1 and "as root" in err


def test_module_runs() -> None:
    """`python -m k3s` is the same entry, and answers --version without loading the cluster."""
    program = (
        "import sys, k3s.cli.main as m\ntry: m.main(['k3s', '--version'])\nfinally: assert 'uvloop' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("k3s version")


def test_options_before_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """`k3s -d DIR --version` and `k3s --debug server` mean what they mean behind the command."""
    from k3s.cli import main as entry

    words = ["-d", "/x", "--debug", "server", "--token=t"]
    assert entry._globals_last(words) == (["server", "-d", "/x", "--debug", "--token=t"], "/x")
    assert entry._globals_last(["--data-dir=/x", "--version"]) == (["--version"], "/x")
    assert entry._globals_last(["kubectl", "-d"]) == (["kubectl", "-d"], "")
    assert entry._globals_last(["-d", "/x", "crictl", "-D", "ps"]) == (["crictl", "-D", "ps"], "/x")
