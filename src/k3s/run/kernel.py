"""The kernel's settings that a kubelet counts on (kubelet's --protect-kernel-defaults; CIS benchmark 4.2.6).

They are never changed here: whoever wants them kept is told which the host lacks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from k3s.run.config import CannotStart

SETTINGS = {
    "vm.overcommit_memory": "1",
    "vm.panic_on_oom": "0",
    "kernel.panic": "10",
    "kernel.panic_on_oops": "1",
    "kernel.keys.root_maxkeys": "1000000",
    "kernel.keys.root_maxbytes": "25000000",
}
_SYSCTLS = Path("/proc/sys")


def differing(sysctls: Path = _SYSCTLS) -> Iterator[tuple[str, str, str]]:
    """Name, value and wanted value of each setting that is not as a kubelet wants it."""
    for name, wanted in SETTINGS.items():
        try:
            found = sysctls.joinpath(*name.split(".")).read_text().strip()
        except OSError:
            found = "absent"
        if found != wanted:
            yield name, found, wanted


def check(sysctls: Path = _SYSCTLS) -> None:
    """Raises CannotStart when a setting is not as a kubelet wants it."""
    wrong = list(differing(sysctls))
    if wrong:
        told = ", ".join(f"{name} is {found}" for name, found, _ in wrong)
        lines = ", ".join(f"{name}={wanted}" for name, _, wanted in wrong)
        raise CannotStart(
            f"Cannot run a node with --protect-kernel-defaults: {told}; write {lines} into "
            "/etc/sysctl.d/90-kubelet.conf and run sysctl --system, or give --protect-kernel-defaults=false"
        )
