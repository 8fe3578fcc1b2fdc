"""`k3s completion bash|zsh [-i]`: what a shell needs to complete k3s's commands and options; -i installs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from k3s.cli.main import commands, fail
from k3s.run.options import options_for

_RC = {"bash": ".bashrc", "zsh": ".zshrc"}


def script(shell: str) -> str:
    """The completion of a shell. Raises KeyError for another one."""
    words = " ".join(sorted(commands()))
    cases = []
    for command in ("server", "agent"):
        flags = " ".join(
            f"--{option.name}" for option in options_for(command) if not option.hidden and not option.refused
        )
        cases.append(f'        {command}) COMPREPLY=($(compgen -W "{flags}" -- "$word")) ;;')
    body = "\n".join(
        [
            "_k3s() {",
            '    local word="${COMP_WORDS[COMP_CWORD]}"',
            '    if [ "$COMP_CWORD" -eq 1 ]; then',
            f'        COMPREPLY=($(compgen -W "{words}" -- "$word"))',
            "        return",
            "    fi",
            '    case "${COMP_WORDS[1]}" in',
            *cases,
            "    esac",
            "}",
            "complete -o default -F _k3s k3s",
        ]
    )
    first = {"bash": "# bash completion of k3s", "zsh": "#compdef k3s\nautoload -U +X bashcompinit && bashcompinit"}
    return f"{first[shell]}\n{body}\n"


def main(args: Sequence[str]) -> int:
    """Prints or installs the completion."""
    install = "-i" in args
    names = [word for word in args if word != "-i"]
    if len(names) != 1 or names[0] not in _RC:
        fail("completion takes one shell: bash or zsh")
    shell = names[0]
    if not install:
        print(script(shell), end="")
        return 0
    rc = Path.home() / _RC[shell]
    line = f"source <(k3s completion {shell})"
    text = rc.read_text() if rc.exists() else ""
    if line not in text.splitlines():
        rc.write_text(text + ("" if not text or text.endswith("\n") else "\n") + line + "\n")
    print(f"{rc}: completes k3s from the next shell on")
    return 0
