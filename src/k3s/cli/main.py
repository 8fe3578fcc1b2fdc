"""The one entry: argv[0] or the first word picks the personality (spec 1.1, 1.2)."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from k3s import COMMIT, VERSION
from k3s.base import bundle

# Word -> (module of this package, one line for `k3s --help`).
_PERSONALITIES = {
    "server": ("k3s.cli.server", "Run the control plane and, with root, a node"),
    "agent": ("k3s.cli.agent", "Run a node that joins a server"),
    "kubectl": ("k3s.cli.kubectl", "Run kubectl against this cluster"),
    "crictl": ("k3s.cli.crictl.command", "Look into this node's container runtime, as crictl does"),
    "ctr": ("k3s.cli.ctr", "Run containerd's ctr against this node"),
    "check-config": ("k3s.cli.check_config", "Tell whether this kernel has what a node needs"),
    "completion": ("k3s.cli.completion", "Print what bash or zsh needs to complete commands and options"),
    "doctor": ("k3s.cli.doctor", "Tell what would stop k3s on this host, with the remedy"),
    "sbom": ("k3s.cli.sbom", "Print what this executable carries, with licences, as SPDX"),
    "secrets-encrypt": ("k3s.cli.secrets_encrypt", "Tell of and change the encryption of Secrets at rest"),
    "token": ("k3s.cli.token", "Make, list and remove tokens with which agents join for a while"),
    "uninstall": ("k3s.cli.uninstall", "Stop all pods and remove every trace of k3s from this host"),
}

# Words of the original whose parts are not built yet: refused by name, never swallowed.
_NOT_YET = (
    "etcd-snapshot",
    "certificate",
)


def commands() -> list[str]:
    """The commands there are."""
    return list(_PERSONALITIES)


def _usage() -> str:
    lines = ["usage: k3s COMMAND [options]", "", "commands:"]
    lines += [f"  {name:<12} {text}" for name, (_, text) in _PERSONALITIES.items()]
    lines += ["", "k3s COMMAND --help tells the options of a command; k3s --version tells the version."]
    return "\n".join(lines)


def version_text() -> str:
    """What `k3s --version` prints: the version with its commit, what it runs on (spec 1.1), which payload it is."""
    python = ".".join(map(str, sys.version_info[:3]))
    lines = [f"k3s version {VERSION}" + (f" ({COMMIT})" if COMMIT else ""), f"python version {python}"]
    payload = bundle.folder()
    return "\n".join([*lines, f"payload {payload.name}"] if payload else lines)


def fail(message: str, code: int = 2) -> NoReturn:
    """Ends the process with one line for a person; code 2 means that the request was wrong."""
    print(f"k3s: {message}", file=sys.stderr)
    sys.exit(code)


def _globals_last(args: list[str]) -> tuple[list[str], str]:
    """The words with the options that may stand before the command behind it (spec 1.1), where they are options of the
    command; and the data folder among them, for the commands that have no such option."""
    early: list[str] = []
    folder = ""
    while args and (args[0] == "--debug" or args[0].startswith(("-d", "--data-dir"))):
        count = 2 if args[0] in ("-d", "--data-dir") else 1
        if args[0] != "--debug":
            folder = args[1] if args[1:] and count == 2 else args[0].partition("=")[2]
        early, args = early + args[:count], args[count:]
    return ([args[0], *early, *args[1:]] if args and args[0] in ("server", "agent", "uninstall") else args), folder


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the personality that `argv` asks for; does not return."""
    words = list(sys.argv if argv is None else argv)
    called = os.path.basename(words[0])
    args = words[1:]
    if called in ("kubectl", "ctr", "crictl"):
        args = [called, *args]
    args, folder = _globals_last(args)
    if folder:
        os.environ["K3S_DATA_DIR"] = folder
    if not args or args[0] in ("-h", "--help", "help"):
        print(_usage())
        sys.exit(0)
    word, rest = args[0], args[1:]
    if word in ("-v", "--version", "version"):
        print(version_text())
        sys.exit(0)
    if word in _NOT_YET:
        fail(f"Cannot run {word!r}: this command is not built yet")
    if word not in _PERSONALITIES:
        fail(f"Unknown command {word!r}: use one of {', '.join(_PERSONALITIES)}")
    module = importlib.import_module(_PERSONALITIES[word][0])
    sys.exit(module.main(rest))
