"""`k3s check-config [FILE]`: whether this kernel and host have what a node needs (spec 1.1).

With --cis [--data-dir=FOLDER] the files of k3s are held against the CIS benchmark instead.

The kernel's configuration is FILE or $CONFIG, else /proc/config.gz or the file of the running kernel in /boot. The exit
code is the number of failures; 1 when no configuration is found.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from k3s.base import bundle

REQUIRED = [
    "NAMESPACES",
    "NET_NS",
    "PID_NS",
    "IPC_NS",
    "UTS_NS",
    "CGROUPS",
    "CGROUP_CPUACCT",
    "CGROUP_DEVICE",
    "CGROUP_FREEZER",
    "CGROUP_SCHED",
    "CPUSETS",
    "MEMCG",
    "KEYS",
    "VETH",
    "BRIDGE",
    "BRIDGE_NETFILTER",
    "IP_NF_FILTER",
    "IP_NF_TARGET_MASQUERADE",
    "NETFILTER_XT_MATCH_ADDRTYPE",
    "NETFILTER_XT_MATCH_CONNTRACK",
    "NETFILTER_XT_MATCH_IPVS",
    "IP_NF_NAT",
    "NF_NAT",
    "POSIX_MQUEUE",
]
OPTIONAL = [
    "USER_NS",
    "SECCOMP",
    "CGROUP_PIDS",
    "BLK_CGROUP",
    "BLK_DEV_THROTTLING",
    "CGROUP_PERF",
    "CGROUP_HUGETLB",
    "NET_CLS_CGROUP",
    "CGROUP_NET_PRIO",
    "CFS_BANDWIDTH",
    "FAIR_GROUP_SCHED",
    "RT_GROUP_SCHED",
    "IP_NF_TARGET_REDIRECT",
    "IP_SET",
    "IP_VS",
    "IP_VS_NFCT",
    "IP_VS_PROTO_TCP",
    "IP_VS_PROTO_UDP",
    "IP_VS_RR",
    "EXT4_FS",
    "EXT4_FS_POSIX_ACL",
    "EXT4_FS_SECURITY",
]
NETWORK = ["VXLAN", "NF_TABLES", "NFT_NAT", "NFT_MASQ", "INET_ESP"]
STORAGE = ["OVERLAY_FS"]
_LEAST_KEYS = 10_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: `ok`, `missing` (a failure) or `warning`, what was looked at, and what was found."""

    state: str
    what: str
    found: str


def kernel_options(text: str) -> dict[str, str]:
    """The options of a kernel's configuration without `CONFIG_`: `y`, `m` or a value."""
    lines = (line.strip() for line in text.splitlines())
    pairs = (line.removeprefix("CONFIG_").split("=", 1) for line in lines if line.startswith("CONFIG_") and "=" in line)
    return dict(pairs)


def kernel(options: Mapping[str, str]) -> Iterator[tuple[str, Finding]]:
    """Judges a kernel: (section, finding)."""
    sections = (
        ("Generally necessary", REQUIRED, "missing"),
        ("Optional features", OPTIONAL, "warning"),
        ("Network drivers", NETWORK, "warning"),
        ("Storage drivers", STORAGE, "warning"),
    )
    for section, names, worst in sections:
        for name in names:
            value = options.get(name, "")
            found = {"y": "enabled", "m": "enabled (as module)"}.get(value, "missing")
            yield section, Finding("ok" if value in ("y", "m") else worst, f"CONFIG_{name}", found)


def limits(proc: Path) -> Iterator[Finding]:
    """Judges limits of the kernel."""
    path = proc / "sys/kernel/keys/root_maxkeys"
    most = int(path.read_text()) if path.exists() else 0
    good = most > _LEAST_KEYS
    remedy = "" if good else f": set kernel.keys.root_maxkeys above {_LEAST_KEYS} with sysctl"
    yield Finding("ok" if good else "missing", "kernel.keys.root_maxkeys", f"{most}{remedy}")


def system(proc: Path) -> Iterator[Finding]:
    """Judges the host: swap, and routes where pods and services would be."""
    swaps = (proc / "swaps").read_text().splitlines()[1:] if (proc / "swaps").exists() else []
    yield Finding("warning" if swaps else "ok", "swap", "should be disabled" if swaps else "disabled")
    route = proc / "net/route"
    lines = route.read_text().splitlines()[1:] if route.exists() else []
    targets = {_address(line.split()[1]): line.split()[0] for line in lines if line.split()[1:]}
    for cidr in ("10.42.", "10.43."):
        taken = [device for address, device in targets.items() if address.startswith(cidr)]
        others = [device for device in taken if not device.startswith(("cni", "k3s", "flannel"))]
        found = f"taken by {others[0]}: choose others with --cluster-cidr and --service-cidr" if others else "free"
        yield Finding("warning" if others else "ok", f"route to {cidr}0.0/16", found)


def _address(text: str) -> str:
    return ".".join(str(part) for part in reversed(bytes.fromhex(text)))


def cgroups(proc: Path) -> Iterator[Finding]:
    """Judges the control groups that are mounted."""
    mounts = [line.split()[2:4] for line in (proc / "mounts").read_text().splitlines()]
    kinds = {kind for kind, _ in mounts}
    found = "v2" if "cgroup2" in kinds and "cgroup" not in kinds else "v1" if "cgroup" in kinds else ""
    yield Finding("ok" if found else "missing", "cgroup hierarchy", found or "not mounted: mount /sys/fs/cgroup")


def binaries(home: Path | None) -> Iterator[Finding]:
    """Judges the programs of the payload by its list: all there and unchanged."""
    if home is None:
        return
    # What the launcher writes into a program when it unpacks: the paths of its loader and of its libraries.
    written = [line.split() for line in (home / ".interpreters").read_text().splitlines()]
    for line in (home / "bin/.sha256sums").read_text().splitlines():
        wanted, name = line.split("  ", 1)
        path = home / "bin" / name
        content = bytearray(path.read_bytes()) if path.is_file() else bytearray()
        for at, size, target, program in written:
            if program == f"bin/{name}":
                room = b"/k3s-libraries" if target == "lib" else b"/k3s-interpreter"
                content[int(at) : int(at) + int(size)] = room.ljust(int(size) - 1, b"_") + b"\0"
        if hashlib.sha256(content).hexdigest() != wanted:
            yield Finding("missing", name, "changed or missing: remove the payload's folder and start k3s again")
    yield Finding("ok", "sha256sums", "checked")


def find(env: Mapping[str, str], given: str) -> tuple[Path, str] | None:
    """The kernel's configuration: where it is and its text."""
    release = platform.release()
    places = [given or env.get("CONFIG", "")]
    if not places[0]:
        places = ["/proc/config.gz", f"/boot/config-{release}", f"/usr/src/linux-{release}/.config"]
        places += [f"/lib/modules/{release}/config", "/usr/src/linux/.config"]
    for place in places:
        path = Path(place)
        if path.is_file():
            data = path.read_bytes()
            text = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
            return path, text.decode(errors="replace")
    return None


def show(section: str, findings: Sequence[Finding]) -> int:
    """Prints a section; answers how many of its findings are failures."""
    print(f"\n{section}:")
    for finding in findings:
        mark = "" if finding.state == "ok" else " (fail)" if finding.state == "missing" else " (warning)"
        print(f"- {finding.what}: {finding.found}{mark}")
    return sum(finding.state == "missing" for finding in findings)


def main(args: Sequence[str]) -> int:
    """Prints the findings; answers how many are failures."""
    if any(word in ("-h", "--help") for word in args):
        print(__doc__.strip() if __doc__ else "")
        return 0
    if "--cis" in args:
        from k3s.cli import cis

        return cis.main([word for word in args if word != "--cis"], os.environ)
    failures = 0
    proc = Path("/proc")
    home = bundle.folder()
    if home is not None:
        print(f"Verifying binaries in {home}/bin:", end="")
        failures += show("", list(binaries(home)))
    failures += show("System", list(system(proc)))
    failures += show("Limits", list(limits(proc)))
    failures += show("Control groups", list(cgroups(proc)))
    config = find(os.environ, args[0] if args else "")
    if config is None:
        print("\nerror: cannot find the kernel's configuration: name its file, as in `k3s check-config FILE`")
        return 1
    print(f"\ninfo: reading kernel config from {config[0]}")
    by_section: dict[str, list[Finding]] = {}
    for section, finding in kernel(kernel_options(config[1])):
        by_section.setdefault(section, []).append(finding)
    failures += sum(show(section, findings) for section, findings in by_section.items())
    print(f"\nSTATUS: {failures or 'pass'}")
    return min(failures, 125)
