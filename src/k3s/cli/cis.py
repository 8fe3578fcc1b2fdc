"""`k3s check-config --cis [--data-dir=FOLDER] [-o json]`: the CIS Kubernetes benchmark, held against what runs here.

The checks are rows of `cisrows`. Settings are those that the server or agent wrote down when it started; sections of a
role that has not run on this host are left out. The exit code is the number of failures.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k3s.cli import cispolicies as policies
from k3s.cli.cisrows import CHECKS, SECTIONS, Check, Cluster, Files, Holds, Person, Setting
from k3s.run import effective, kernel
from k3s.run.config import ConfigError, default_data_dir, resolve

ROOT = (0, 0)
PASS, FAIL, WARN = "PASS", "FAIL", "WARN"
_ASK_S = 10.0
# More names than these are counted.
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Result:
    """What a check came to; `found` says what was seen, `remedy` what to do about it."""

    check: Check
    state: str
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Host:
    """What there is to look at. `settings` by role, None of one that wrote none; `cluster` None when not reachable."""

    data_dir: Path
    owner: tuple[int, int] = ROOT
    settings: Mapping[str, Mapping[str, Any] | None] | None = None
    cluster: policies.State | None = None

    @property
    def roles(self) -> frozenset[str]:
        """The roles that have run here."""
        return frozenset(role for role in ("server", "agent") if self._has_run(role))

    def _has_run(self, role: str) -> bool:
        sign = "server/tls" if role == "server" else "agent/client-kubelet.key"
        return (self.data_dir / sign).exists()


def results(host: Host) -> Iterator[Result]:
    """Judges a host.

    Raises PermissionError where a folder cannot be looked into: nothing found there would say nothing.
    """
    for role in ("server", "agent"):
        if (host.data_dir / role).is_dir():
            os.listdir(host.data_dir / role)
    roles = host.roles
    for check in CHECKS:
        if check.role in roles:
            yield _result(check, host)


def _result(check: Check, host: Host) -> Result:
    look, worst = check.look, FAIL if check.scored else WARN
    if isinstance(look, Files):
        paths = sorted(host.data_dir.glob(look.glob))
        faults = [fault for path in paths if (fault := _fault(look, path, host.owner))]
        texts = [f"{path} {what}" for path, what, _ in faults]
        commands = [f"{command} {path}" for path, _, command in faults]
        if faults:
            return Result(check, worst, "; ".join(texts), "; ".join(commands))
        return Result(check, PASS, f"{len(paths)} looked at" if paths else "no such file here")
    if isinstance(look, Holds):
        return Result(check, PASS, str(look))
    if isinstance(look, Person):
        return Result(check, WARN, "a person has to judge", check.remedy)
    if isinstance(look, Setting):
        return _setting(check, look, (host.settings or {}).get(check.role), worst)
    return _cluster(check, look, host.cluster)


def _setting(check: Check, look: Setting, settings: Mapping[str, Any] | None, worst: str) -> Result:
    if settings is None or look.name not in settings:
        return Result(
            check, worst, f"{look.name} is not known", f"start k3s {check.role} once: it writes its settings down"
        )
    value = settings[look.name]
    good = look.good(value)
    if isinstance(value, list) and len(value) > _SHOWN:
        found = f"{look.name}: {look.wanted}" if good else f"{look.name}: not as asked: {look.wanted}"
    else:
        found = f"{look.name} is {_shown(value)}"
    return Result(check, PASS, found) if good else Result(check, worst, found, check.remedy)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "empty"
    return "not set" if value == "" else str(value).lower() if isinstance(value, bool) else str(value)


def _cluster(check: Check, look: Cluster, cluster: policies.State | None) -> Result:
    if cluster is None:
        return Result(check, WARN, "the API server does not answer", "start it and look again")
    found = list(look.look(cluster))
    if not found:
        return Result(check, PASS, "none")
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return Result(check, WARN, f"{look.what}: {', '.join(found[:_SHOWN])}{more}", check.remedy)


def _fault(look: Files, path: Path, owner: tuple[int, int]) -> tuple[Path, str, str] | None:
    """What is wrong with a file and the command that repairs it."""
    status = path.stat()
    if look.most is None:
        has = (status.st_uid, status.st_gid)
        return None if has == owner else (path, f"belongs to {has[0]}:{has[1]}", f"chown {owner[0]}:{owner[1]}")
    mode = stat.S_IMODE(status.st_mode)
    return (path, f"has mode {mode:o}", f"chmod {look.most:o}") if mode & ~look.most else None


# -- looking


def look_at(data_dir: Path) -> Host:
    """The host with its settings, and the cluster when its API server answers. Raises PermissionError."""
    server, agent = (effective.read(data_dir / role) for role in ("server", "agent"))
    if server is not None:
        server["encryption"] = _cipher(data_dir, server)
    if agent is not None:
        agent["kernel"] = [f"{name}={found}" for name, found, _ in kernel.differing()]
    return Host(data_dir, settings={"server": server, "agent": agent}, cluster=_state(data_dir, server or {}))


def _cipher(data_dir: Path, settings: Mapping[str, Any]) -> str:
    """The provider that encrypts new Secrets, now: `k3s secrets-encrypt` changes it while the server runs."""
    from k3s.api import yamltext

    own = settings.get("encryption-provider-config")
    path = Path(own) if own else data_dir / "server" / "cred" / "encryption-config.json"
    try:
        document: Any = yamltext.load(path.read_bytes())
        groups = document["resources"]
        first = next(group["providers"][0] for group in groups if {"secrets", "*.*", "*."} & set(group["resources"]))
    except (FileNotFoundError, ValueError, LookupError, TypeError, StopIteration):
        return ""
    return str(next(iter(first), ""))


def _state(data_dir: Path, settings: Mapping[str, Any]) -> policies.State | None:
    path = data_dir / "server" / "cred" / "admin.kubeconfig"
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    return asyncio.run(_read_cluster(text, settings))


async def _read_cluster(kubeconfig: str, settings: Mapping[str, Any]) -> policies.State | None:
    from k3s.api.errors import ApiError, OutcomeUnknown
    from k3s.api.kinds import builtin
    from k3s.client.client import Client
    from k3s.client.https import from_kubeconfig
    from k3s.client.kubeconfig import load

    transport = from_kubeconfig(load(kubeconfig))
    client = Client(transport)
    try:
        async with asyncio.timeout(_ASK_S):
            found = {kind: (await client.list(builtin(version, kind))).items for version, kind in policies.KINDS}
    except (ApiError, OutcomeUnknown, OSError, TimeoutError):
        return None
    finally:
        await transport.close()
    return policies.State(found, settings)


# -- telling


def text(found: Sequence[Result]) -> str:
    """The results by section, with what to do about those that are no PASS, and their numbers."""
    lines: list[str] = []
    for number, title, rows in SECTIONS:
        here = [result for result in found if result.check in rows]
        if here:
            lines += ["", f"== {number} {title}"]
        for result in here:
            lines.append(f"[{result.state}] {result.check.number} {result.check.what}: {result.found}")
            if result.remedy:
                lines.append(f"       -> {result.remedy}")
    return (
        "\n".join([*lines, "", "== summary", *(f"{count:4} {state}" for state, count in totals(found).items())]) + "\n"
    )


def totals(found: Sequence[Result]) -> dict[str, int]:
    """How many came to what."""
    return {state: sum(result.state == state for result in found) for state in (PASS, FAIL, WARN)}


def document(found: Sequence[Result]) -> dict[str, Any]:
    """The same for programs."""
    rows = [
        {
            "number": result.check.number,
            "what": result.check.what,
            "scored": result.check.scored,
            "state": result.state,
            "found": result.found,
            "remedy": result.remedy,
        }
        for result in found
    ]
    return {"totals": totals(found), "checks": rows}


def markdown() -> str:
    """The table of docs/security.md."""
    rows = (f"| {c.number} | {c.what}{'' if c.scored else ' (warning)'} | {c.look} |" for c in CHECKS)
    return "\n".join(("| number | what | looked at |", "|---|---|---|", *rows)) + "\n"


def main(args: Sequence[str], env: Mapping[str, str]) -> int:
    """Prints the results; answers how many are failures, 1 when there is nothing to look at."""
    try:
        folder, as_json = _arguments(args)
        settings_folder = folder or resolve("server", (), env).text("data-dir")
        data_dir = Path(settings_folder).absolute() if settings_folder else default_data_dir(env, os.geteuid() == 0)
        if not Host(data_dir).roles:
            print(f"error: no k3s has run in {data_dir}: start it first, or name its folder with --data-dir=FOLDER")
            return 1
        found = list(results(look_at(data_dir)))
    except ConfigError as error:
        print(f"error: {error}; or name the folder with --data-dir=FOLDER")
        return 1
    except ValueError as error:
        print(f"error: {error}")
        return 1
    except PermissionError as error:
        print(f"error: cannot look into {error.filename}: run this as root")
        return 1
    if as_json:
        from k3s.api.object import encode

        print(encode(document(found)).decode())
    else:
        print(text(found), end="")
    return min(totals(found)[FAIL], 125)


def _arguments(args: Sequence[str]) -> tuple[str, bool]:
    """The folder and whether JSON is wanted. Raises ValueError."""
    folder, form, rest = "", "text", list(args)
    while rest:
        name, _, value = rest.pop(0).partition("=")
        if name not in ("--data-dir", "-o", "--output"):
            raise ValueError(f"--cis does not know {name}: it takes --data-dir=FOLDER and -o json")
        value = value or (rest.pop(0) if rest else "")
        if name == "--data-dir":
            folder = value
        else:
            form = value
    if form not in ("text", "json"):
        raise ValueError(f"-o {form}: use text or json")
    return folder, form == "json"
