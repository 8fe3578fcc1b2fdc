"""Warnings of an answer, as headers: each once, and no more of them than a client's headers may take.

Where all together are longer than 4096 characters, each is cut to 256, and those beyond 4096 are left out. Source: the
API server's warning recorder (KEP-1693) and its limits.
"""

from __future__ import annotations

from collections.abc import Sequence

from k3s.base.message import Response

_TOGETHER, _EACH = 4096, 256


def warn(answer: Response, texts: Sequence[str]) -> None:
    """Adds the warnings to an answer."""
    answer.headers = (*answer.headers, *(("Warning", f'299 - "{_quoted(text)}"') for text in fitting(texts)))


def fitting(texts: Sequence[str]) -> list[str]:
    """The texts that are sent, in order."""
    once = list(dict.fromkeys(texts))
    if sum(map(len, once)) <= _TOGETHER:
        return once
    sent: list[str] = []
    whole = cut = 0
    for text in once:
        # Those before the first one that did not fit are cut when it comes, and stay.
        if whole > _TOGETHER and cut >= _TOGETHER:
            break
        whole += len(text)
        sent.append(text[:_EACH])
        cut += len(sent[-1])
    return sent


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
