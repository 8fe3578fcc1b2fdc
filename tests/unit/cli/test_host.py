"""check-config, doctor and completion: what they find on hosts made of files."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
from pathlib import Path

import pytest

from k3s.cli import check_config, completion, doctor, main
from k3s.cli.check_config import OPTIONAL, REQUIRED, Finding

GOOD = "".join(f"CONFIG_{name}=y\n" for name in (*REQUIRED, *OPTIONAL, "VXLAN", "OVERLAY_FS"))


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A healthy host's /proc."""
    files = {
        "sys/kernel/keys/root_maxkeys": "1000000",
        "sys/fs/inotify/max_user_instances": "1024",
        "sys/fs/inotify/max_user_watches": "100000",
        "sys/net/bridge/bridge-nf-call-iptables": "1",
        "filesystems": "nodev\toverlay\n",
        "swaps": "Filename\tType\n",
        "net/route": "Iface\tDestination\neth0\t00000000\tFE02000A\ncni0\t00002A0A\t0\n",
        "mounts": "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n",
    }
    for name, text in files.items():
        path = tmp_path / "proc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "proc"


def states(findings: object) -> dict[str, str]:
    return {finding.what: finding.state for finding in findings}  # type: ignore[attr-defined]


def test_a_kernel_is_judged_option_by_option() -> None:
    """Required options are failures, others warnings; a module is as good as built in."""
    assert {found.state for _, found in check_config.kernel(check_config.kernel_options(GOOD))} == {"ok", "warning"}
    text = GOOD.replace("CONFIG_MEMCG=y", "# CONFIG_MEMCG is not set").replace("CONFIG_VETH=y", "CONFIG_VETH=m")
    found = {f.what: f for _, f in check_config.kernel(check_config.kernel_options(text.replace("CONFIG_IP_VS=y", "")))}
    assert found["CONFIG_MEMCG"] == Finding("missing", "CONFIG_MEMCG", "missing")
    assert found["CONFIG_VETH"] == Finding("ok", "CONFIG_VETH", "enabled (as module)")
    assert found["CONFIG_IP_VS"].state == "warning"


def test_the_exit_code_counts_failures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file by name, packed or not; none at all is one failure."""
    good, bad = tmp_path / "good.gz", tmp_path / "bad"
    good.write_bytes(gzip.compress(GOOD.encode()))
    bad.write_text(GOOD.replace("CONFIG_MEMCG=y\n", "").replace("CONFIG_VETH=y\n", ""))
    before = check_config.main([str(good)])
    assert "STATUS: " in capsys.readouterr().out
    assert check_config.main([str(bad)]) == before + 2
    out = capsys.readouterr().out
    assert "- CONFIG_MEMCG: missing (fail)" in out
    assert f"reading kernel config from {bad}" in out
    assert check_config.main([str(tmp_path / "none")]) == 1


def test_a_host_is_judged(proc: Path) -> None:
    """Limits, swap, routes, control groups: each with its remedy."""
    found = [*check_config.limits(proc), *check_config.system(proc), *check_config.cgroups(proc)]
    assert set(states(found).values()) == {"ok"}
    (proc / "sys/kernel/keys/root_maxkeys").write_text("200")
    (proc / "swaps").write_text("Filename\n/dev/sda2\n")
    (proc / "net/route").write_text("Iface\nvpn0\t00002A0A\n")
    (proc / "mounts").write_text("proc /proc proc rw 0 0\n")
    found = [*check_config.limits(proc), *check_config.system(proc), *check_config.cgroups(proc)]
    assert [f.state for f in found] == ["missing", "warning", "warning", "ok", "missing"]
    assert "sysctl" in found[0].found
    assert "--cluster-cidr" in found[2].found


def test_a_payload_is_checked_against_its_list(tmp_path: Path) -> None:
    """The places of the loader and of the libraries may differ, anything else may not."""
    rooms = [name.ljust(496, b"_") + b"\0" for name in (b"/k3s-interpreter", b"/k3s-libraries")]
    written = [path.ljust(497, b"\0") for path in (b"/var/lib/ld.so", b"/var/lib")]
    content = b"ELF" + b"".join(rooms) + b"rest"
    (tmp_path / "bin").mkdir()
    (tmp_path / ".interpreters").write_text("3 497 lib/ld.so bin/tool\n500 497 lib bin/tool\n")
    (tmp_path / "bin/.sha256sums").write_text(f"{hashlib.sha256(content).hexdigest()}  tool\n")
    (tmp_path / "bin/tool").write_bytes(b"ELF" + b"".join(written) + b"rest")
    assert [f.state for f in check_config.binaries(tmp_path)] == ["ok"]
    (tmp_path / "bin/tool").write_bytes(b"ELF" + b"".join(written) + b"Rest")
    assert [(f.state, f.what) for f in check_config.binaries(tmp_path)] == [("missing", "tool"), ("ok", "sha256sums")]


def test_what_would_stop_k3s_has_its_remedy(proc: Path, tmp_path: Path) -> None:
    """A taken port and a clock before 1980 are failures; low limits and missing modules warnings."""
    assert "missing" not in states(doctor.findings(proc, tmp_path, lambda port: False, 1e9)).values()
    (proc / "sys/fs/inotify/max_user_instances").write_text("128")
    (proc / "filesystems").write_text("ext4\n")
    (proc / "net/route").write_text("Iface\n")
    found = {f.what: f for f in doctor.findings(proc, tmp_path, lambda port: port == 6443, 0.0)}
    assert found["port 6443 (API server)"].state == "missing"
    assert "ss -ltnp" in found["port 6443 (API server)"].found
    assert found["clock"].state == "missing"
    assert found["fs.inotify.max_user_instances"].found == "128: sysctl fs.inotify.max_user_instances=512"
    assert found["overlayfs"].found == "not loaded: modprobe overlay"
    assert found["default route"].state == "warning"


def test_bash_completes_commands_and_options() -> None:
    """The script is run by bash itself: words of the first place, flags of a command."""
    ask = 'COMP_WORDS=(k3s {words}); COMP_CWORD={at}; _k3s; printf "%s\\n" "${{COMPREPLY[@]}}"'

    def completed(words: str, at: int) -> list[str]:
        text = completion.script("bash") + ask.format(words=words, at=at)
        return subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True).stdout.split()

    assert completed("ser", 1) == ["server"]
    assert set(completed('""', 1)) == set(main.commands())
    assert completed("server --cluster-ci", 2) == ["--cluster-cidr"]
    assert completed("agent --cluster-ci", 2) == []


def test_completion_is_installed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """-i adds a line to the shell's file, a second time nothing."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".zshrc").write_text("alias k=kubectl")
    assert completion.main(["zsh", "-i"]) == 0
    assert completion.main(["-i", "zsh"]) == 0
    assert (tmp_path / ".zshrc").read_text() == "alias k=kubectl\nsource <(k3s completion zsh)\n"
