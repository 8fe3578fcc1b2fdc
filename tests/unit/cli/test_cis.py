"""check-config --cis: what it says of files, settings and policies, each row on its own."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from k3s.cli import check_config, cis
from k3s.cli.cispolicies import State
from k3s.cli.cisrows import CHECKS, Check, Cluster, Files, Holds, Person, Setting
from k3s.run import effective
from k3s.run import settings as choices
from k3s.run.agentconfig import AgentConfig
from k3s.run.config import resolve
from k3s.run.serverconfig import ServerConfig

OWNER = (os.geteuid(), os.getegid())
FILES = [check for check in CHECKS if isinstance(check.look, Files)]


def server(*args: str) -> ServerConfig:
    return choices.server_config(resolve("server", ["--config=/dev/null", *args], {}), {}, "192.0.2.1")


def agent(*args: str) -> AgentConfig:
    settings = resolve("agent", ["--config=/dev/null", "--server=https://s:6443", *args], {})
    return choices.agent_config(settings, {}, "n", "secret")


def settings(*flags: str, cipher: str = "") -> dict[str, Mapping[str, Any]]:
    """What a server and its agent write down with these flags, and what is read beside it."""
    of_server = {**effective.of_server(server(*flags)), "encryption": cipher}
    kubelet = [flag for flag in flags if flag.startswith(("--hardened", "--kubelet", "--protect"))]
    return {"server": of_server, "agent": {**effective.of_agent(agent(*kubelet)), "kernel": []}}


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data folder as a server and its agent leave it: every file that is asked for, with the most it may have."""
    for check in FILES:
        assert isinstance(check.look, Files)
        path = tmp_path / check.look.glob.replace("**/*", "etcd/peer").replace("/*", "/10-k3s.conflist")
        if check.look.glob in ("server/db", "server/tls"):
            path.mkdir(parents=True, mode=0o700, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        path.chmod(0o600 if check.look.most is None else check.look.most)
    return tmp_path


def states(host: cis.Host) -> dict[str, str]:
    """The worst state of each number."""
    order = (cis.PASS, cis.WARN, cis.FAIL)
    found: dict[str, str] = {}
    for result in cis.results(host):
        found[result.check.number] = max(found.get(result.check.number, cis.PASS), result.state, key=order.index)
    return found


def failing(data_dir: Path, owner: tuple[int, int] = OWNER) -> dict[str, str]:
    """Number of each check of files that does not pass, and its remedy."""
    found = cis.results(cis.Host(data_dir, owner, settings("--hardened")))
    return {r.check.number: r.remedy for r in found if isinstance(r.check.look, Files) and r.state != cis.PASS}


def test_files_as_k3s_writes_them_pass(data_dir: Path) -> None:
    """Nothing is held against the modes that are asked for, or narrower ones."""
    assert failing(data_dir) == {}
    (data_dir / "server/cred/admin.kubeconfig").chmod(0o400)
    assert failing(data_dir) == {}


@pytest.mark.parametrize("check", [c for c in FILES if c.look.most is not None], ids=lambda c: c.number)  # type: ignore[union-attr]
def test_each_mode_is_looked_at(data_dir: Path, check: Check) -> None:
    """One bit too many fails that check alone, with the command that repairs it."""
    assert isinstance(check.look, Files) and check.look.most is not None
    path = next(iter(data_dir.glob(check.look.glob)))
    path.chmod(check.look.most | 0o020)
    assert failing(data_dir) == {check.number: f"chmod {check.look.most:o} {path}"}


def test_each_owner_is_looked_at(data_dir: Path) -> None:
    """Files of somebody else fail every check of owners and none of modes."""
    wanted = {c.number for c in FILES if isinstance(c.look, Files) and c.look.most is None}
    assert set(failing(data_dir, (4711, 4712))) == wanted
    assert "chown 4711:4712 " in failing(data_dir, (4711, 4712))["1.1.14"]


#: What fails when nothing is said, and is mended by --hardened.
MENDED = {"1.2.16", "1.2.17", "1.2.18", "1.2.19", "1.2.30", "3.2.1"}


def test_what_a_fresh_server_fails_and_hardened_mends(data_dir: Path) -> None:
    """The audit log and tokens that last a year are all that fails by default; nothing does with --hardened."""
    plain = states(cis.Host(data_dir, OWNER, settings()))
    assert {number for number, state in plain.items() if state == cis.FAIL} == MENDED
    hardened = states(cis.Host(data_dir, OWNER, settings("--hardened", cipher="aescbc")))
    assert {number for number, state in hardened.items() if state == cis.FAIL} == set()
    for number in ("1.2.9", "1.2.27", "1.2.28", "4.2.14"):
        assert (plain[number], hardened[number]) == (cis.WARN, cis.PASS), number


@pytest.mark.parametrize(
    ("flag", "number"),
    [
        ("--kube-apiserver-arg=anonymous-auth=true", "1.2.1"),
        ("--kube-apiserver-arg=token-auth-file=/etc/hostname", "1.2.2"),
        ("--kube-apiserver-arg=enable-admission-plugins=AlwaysAdmit", "1.2.10"),
        ("--kube-apiserver-arg=disable-admission-plugins=ServiceAccount", "1.2.12"),
        ("--kube-apiserver-arg=disable-admission-plugins=NamespaceLifecycle", "1.2.13"),
        ("--kube-apiserver-arg=disable-admission-plugins=NodeRestriction", "1.2.14"),
        ("--kube-apiserver-arg=audit-log-maxage=29", "1.2.17"),
        ("--kube-apiserver-arg=audit-log-maxbackup=9", "1.2.18"),
        ("--kube-apiserver-arg=audit-log-maxsize=99", "1.2.19"),
        ("--kube-apiserver-arg=request-timeout=0", "1.2.20"),
        ("--kube-apiserver-arg=service-account-extend-token-expiration=true", "1.2.30"),
        ("--kube-controller-manager-arg=terminated-pod-gc-threshold=0", "1.3.1"),
        ("--kubelet-arg=streaming-connection-idle-timeout=0", "4.2.5"),
        ("--kubelet-arg=seccomp-default=false", "4.2.14"),
    ],
)
def test_each_setting_is_looked_at(data_dir: Path, flag: str, number: str) -> None:
    """A flag that weakens a hardened host shows in its check, and in no other."""
    before = states(cis.Host(data_dir, OWNER, settings("--hardened")))
    after = states(cis.Host(data_dir, OWNER, settings("--hardened", flag)))
    assert {n for n in before if before[n] != after[n]} == {number}
    assert before[number] == cis.PASS


def test_every_setting_of_a_row_is_written_down() -> None:
    """No row asks for what nobody writes; a host that wrote nothing is told to start k3s."""
    known = settings()
    for check in CHECKS:
        if isinstance(check.look, Setting):
            assert check.look.name in known[check.role], check.number


def test_what_was_found_is_told(data_dir: Path) -> None:
    """The value of a setting, or of a long list what is asked of it; the remedy of what does not pass; the numbers."""
    host = cis.Host(data_dir, OWNER, settings("--kubelet-arg=seccomp-default=false"), State(CALM))
    found = list(cis.results(host))
    told = cis.text(found)
    assert (
        "[PASS] 1.2.14 admission plugin NodeRestriction is set: admission-plugins: NodeRestriction among them" in told
    )
    assert "[WARN] 1.2.9 admission plugin EventRateLimit is set: admission-plugins: not as asked: Event" in told
    assert "[WARN] 4.2.14 kubelet: seccomp by default: seccomp-default is false\n       -> --hardened, or" in told
    assert "[FAIL] 1.2.17 audit-log-maxage: audit-log-maxage is 0\n       -> --hardened, or --kube-apiserver" in told
    assert f"{cis.totals(found)[cis.FAIL]:4} FAIL" in told


def test_without_settings_nothing_passes_by_them(data_dir: Path) -> None:
    """A host of an older k3s, which wrote no settings down, is told to start it once."""
    found = {r.check.number: r for r in cis.results(cis.Host(data_dir, OWNER))}
    assert (found["1.2.1"].state, found["1.2.16"].state) == (cis.FAIL, cis.FAIL)
    assert "start k3s server once" in found["1.2.16"].remedy


def role(name: str, *rules: dict[str, Any], **meta: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **meta}, "rules": list(rules)}


def pod(namespace: str, **spec: Any) -> dict[str, Any]:
    """A pod that is fine in every way but for what is given."""
    context = {"seccompProfile": {"type": "RuntimeDefault"}}
    good = {
        "serviceAccountName": "own",
        "automountServiceAccountToken": False,
        "containers": [{"name": "c", "securityContext": context}],
    }
    return {"metadata": {"name": "p", "namespace": namespace}, "spec": {**good, **spec}}


def bound(name: str, to: str, subject: str, **meta: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **meta}, "roleRef": {"name": to}, "subjects": [{"name": subject}]}


CALM: dict[str, list[dict[str, Any]]] = {
    "Namespace": [{"metadata": {"name": "a", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}],
    "Pod": [pod("a"), pod("kube-system", containers=[{"name": "c"}])],
    "NetworkPolicy": [{"metadata": {"name": "n", "namespace": "a"}}],
    "ClusterRole": [
        role("admin", {"verbs": ["*"], "resources": ["*"]}, labels={"kubernetes.io/bootstrapping": "rbac-defaults"}),
        role("system:x", {"verbs": ["get"], "resources": ["secrets"]}),
        role("mine", {"verbs": ["get"], "resources": ["pods"]}),
    ],
    "ClusterRoleBinding": [
        bound("cluster-admin", "cluster-admin", "system:masters", labels={"kubernetes.io/bootstrapping": "x"})
    ],
}
_ENV = [{"name": "c", "securityContext": {"seccompProfile": {"type": "Localhost"}}}]
_SECRET = {"valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}


@pytest.mark.parametrize(
    ("kind", "obj", "numbers"),
    [
        ("ClusterRoleBinding", bound("b", "cluster-admin", "me"), {"5.1.1"}),
        ("ClusterRole", role("r", {"verbs": ["list"], "resources": ["secrets"]}), {"5.1.2"}),
        ("Role", role("r", {"verbs": ["create"], "resources": ["pods"]}, namespace="a"), {"5.1.4"}),
        ("Pod", pod("a", automountServiceAccountToken=True, serviceAccountName="default"), {"5.1.5", "5.1.6"}),
        ("Pod", pod("a", automountServiceAccountToken=None), {"5.1.6"}),
        ("ClusterRoleBinding", bound("b", "view", "system:masters"), {"5.1.7"}),
        ("ClusterRole", role("r", {"verbs": ["escalate"], "resources": ["roles"]}), {"5.1.8"}),
        ("ClusterRole", role("r", {"verbs": ["create"], "resources": ["persistentvolumes"]}), {"5.1.9"}),
        ("ClusterRole", role("r", {"verbs": ["get"], "resources": ["nodes/proxy"]}), {"5.1.10"}),
        (
            "ClusterRole",
            role("r", {"verbs": ["patch"], "resources": ["certificatesigningrequests/approval"]}),
            {"5.1.11"},
        ),
        ("ClusterRole", role("r", {"verbs": ["delete"], "resources": ["mutatingwebhookconfigurations"]}), {"5.1.12"}),
        ("ClusterRole", role("r", {"verbs": ["create"], "resources": ["serviceaccounts/token"]}), {"5.1.13"}),
        ("Pod", pod("b"), {"5.3.2"}),
        ("Pod", pod("a", containers=[{**_ENV[0], "env": [_SECRET]}]), {"5.4.1"}),
        ("Pod", pod("a", containers=[{"name": "c", "securityContext": {"runAsUser": 7}}]), {"5.6.2"}),
        ("Pod", pod("a", securityContext={"seccompProfile": {"type": "RuntimeDefault"}}, containers=[{}]), {"5.6.3"}),
        ("Namespace", {"metadata": {"name": "b"}}, {f"5.2.{n}" for n in range(1, 13)}),
        (
            "Namespace",
            {"metadata": {"name": "b", "labels": {"pod-security.kubernetes.io/enforce": "baseline"}}},
            {"5.2.6", "5.2.7", "5.2.8", "5.2.9"},
        ),
    ],
)
def test_each_policy_is_looked_at(data_dir: Path, kind: str, obj: dict[str, Any], numbers: set[str]) -> None:
    """A calm cluster passes; one object more shows in its checks alone, and never as a failure."""
    host = cis.Host(data_dir, OWNER, settings("--hardened"), State(CALM))
    before = states(host)
    assert {c.number for c in CHECKS if isinstance(c.look, Cluster) and before[c.number] != cis.PASS} == set()
    after = states(replace(host, cluster=State({**CALM, kind: [*CALM.get(kind, []), obj]})))
    assert {number for number in before if before[number] != after[number]} == numbers
    assert {after[number] for number in numbers} == {cis.WARN}


def test_wildcards_show_wherever_they_reach(data_dir: Path) -> None:
    """A role that may do everything shows in every check of rights."""
    everything = role("r", {"verbs": ["*"], "resources": ["*"], "apiGroups": ["*"]})
    cluster = State({**CALM, "ClusterRole": [*CALM["ClusterRole"], everything]})
    found = states(cis.Host(data_dir, OWNER, settings("--hardened"), cluster))
    wanted = {f"5.1.{n}" for n in (2, 3, 4, 8, 9, 10, 11, 12, 13)}
    assert {n for n, state in found.items() if n.startswith("5.1.") and state == cis.WARN} == wanted


def test_the_servers_default_of_pod_security_counts(data_dir: Path) -> None:
    """A namespace without labels is judged by what --hardened sets."""
    state = State({**CALM, "Namespace": [{"metadata": {"name": "b"}}]}, settings("--hardened")["server"])
    assert states(cis.Host(data_dir, OWNER, settings("--hardened"), state))["5.2.6"] == cis.PASS


def test_only_roles_that_ran_here_are_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An agent is not asked for a datastore; a folder where nothing ran is an error that says what to do."""
    assert check_config.main(["--cis", f"--data-dir={tmp_path}"]) == 1
    assert f"no k3s has run in {tmp_path}: start it first" in capsys.readouterr().out
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / "client-kubelet.key").touch(0o600)
    effective.write(tmp_path / "agent", effective.of_agent(agent("--hardened")))
    assert check_config.main(["--cis", f"--data-dir={tmp_path}", "-o", "json"]) in (0, 1)  # 1: not root
    told = json.loads(capsys.readouterr().out)
    assert {row["number"].split(".")[0] for row in told["checks"]} == {"4"}
    assert sum(told["totals"].values()) == len(told["checks"])
    for wrong, says in ((["--datadir=/x"], "does not know --datadir"), (["-o", "xml"], "use text or json")):
        assert check_config.main(["--cis", *wrong]) == 1
        assert says in capsys.readouterr().out


def test_settings_are_for_root_alone_and_hold_no_secrets(tmp_path: Path) -> None:
    """Mode 600; what is given as a token is not in it."""
    effective.write(tmp_path, effective.of_server(server("--token=hush", "--agent-token=hush")))
    effective.write(tmp_path / "agent", effective.of_agent(agent("--token=hush")))
    for path in (tmp_path / effective.FILE, tmp_path / "agent" / effective.FILE):
        assert path.stat().st_mode & 0o777 == 0o600
        assert "hush" not in path.read_text() and "secret" not in path.read_text().replace("secretbox", "")
    (tmp_path / effective.FILE).write_text("{")
    assert effective.read(tmp_path) is None


def test_numbers_are_in_order_and_every_row_says_what_to_do() -> None:
    """Numbers count up within a section; what may fail or warn has a remedy."""
    rows = [c for c in CHECKS if not isinstance(c.look, Files | Holds)]
    assert [c.number for c in rows if not c.remedy] == []
    assert not [c.number for c in CHECKS if isinstance(c.look, Person | Cluster) and c.scored]
    shown = [[int(part) if part.isdecimal() else 99 for part in c.number.split(".")] for c in CHECKS]
    assert shown == sorted(shown)
