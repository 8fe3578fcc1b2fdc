"""Which form an answer takes: content negotiation, pure and remembered by Accept header.

Rules: "Alternate representations of resources" in the API concepts page (JSON, YAML, Kubernetes protobuf; `as=Table`,
`as=PartialObjectMetadata[List]` with `g` and `v`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from k3s.api.errors import NotAcceptable

JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
SUPPORTED = (JSON, YAML, PROTOBUF)
_WILD = {"*/*": JSON, "application/*": JSON}
_MEMO_LIMIT = 256
# Programs with a person in front of them get indented JSON unless they say otherwise.
_PRETTY_AGENTS = ("curl", "Wget", "Mozilla/5.0")


@dataclass(frozen=True, slots=True)
class Media:
    """What the client wants: `shape` is "" (the object itself), Table, PartialObjectMetadata or …List of that."""

    type: str = JSON
    shape: str = ""
    version: str = "v1"
    pretty: bool = False
    watch_stream: bool = False

    @property
    def plain(self) -> bool:
        """True when the stored bytes are the answer."""
        return self.type == JSON and not self.shape and not self.pretty


PLAIN = Media()


def _not_acceptable() -> NotAcceptable:
    listed = ", ".join(SUPPORTED)
    return NotAcceptable(f"406: Not Acceptable\n\nAvailable representations: {listed}", {})


class Negotiation:
    """Answers by Accept header; remembers them."""

    def __init__(self) -> None:
        self._memo: dict[tuple[str, str | None, bool], Media | None] = {}

    def choose(self, accept: str, pretty: str | None, agent: str) -> Media:
        """What an Accept header asks for, `pretty` and the user agent considered. Raises NotAcceptable."""
        person = agent.startswith(_PRETTY_AGENTS)
        key = (accept, pretty, person)
        if key in self._memo:
            known = self._memo[key]
        else:
            if len(self._memo) >= _MEMO_LIMIT:
                self._memo.clear()
            known = self._memo[key] = _choose(accept, pretty, person)
        if known is None:
            raise _not_acceptable()
        return known


def _choose(accept: str, pretty: str | None, person: bool) -> Media | None:
    media = negotiate(accept)
    if media is None:
        return None
    if pretty is not None:
        wants = pretty not in ("0", "f", "F", "false", "FALSE", "False")
    else:
        wants = media.pretty or person
    return replace(media, pretty=wants) if wants != media.pretty else media


def negotiate(accept: str) -> Media | None:
    """What an Accept header asks for; None when nothing of it can be served."""
    if not accept.strip():
        return PLAIN
    clauses: list[tuple[float, int, str, dict[str, str]]] = []
    for at, clause in enumerate(accept.split(",")):
        name, *rest = (part.strip() for part in clause.split(";"))
        params = dict(pair.partition("=")[::2] for pair in rest)
        try:
            quality = float(params.pop("q", "1"))
        except ValueError:
            quality = 0.0
        clauses.append((-quality, at, name.lower(), {k.strip(): v.strip().strip('"') for k, v in params.items()}))
    clauses.sort(key=lambda clause: clause[:2])
    for quality, _, name, params in clauses:
        kind = _WILD.get(name, name)
        if quality == 0 or kind not in SUPPORTED:
            continue
        media = _with_params(kind, params)
        if media is not None:
            return media
    return None


def _with_params(kind: str, params: dict[str, str]) -> Media | None:
    shape = params.get("as", "")
    version = params.get("v", "v1")
    if shape:
        known = ("Table", "PartialObjectMetadata", "PartialObjectMetadataList")
        if shape not in known or params.get("g") != "meta.k8s.io" or version not in ("v1", "v1beta1"):
            return None
    pretty = params.get("pretty") == "1"
    stream = params.get("stream") == "watch"
    if kind == JSON and not shape and not pretty and not stream:
        return PLAIN
    return Media(kind, shape, version, pretty, stream)
