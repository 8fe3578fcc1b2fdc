"""k3s' own encryption configuration: one provider for Secrets, and the stages in which its keys are rotated.

Pure: documents in, documents out. Source: the documentation of `k3s secrets-encrypt`; the document is upstream's
EncryptionConfiguration.
"""

from __future__ import annotations

import base64

from k3s.api import times
from k3s.api.object import Object

START, PREPARE, ROTATE = "start", "prepare", "rotate"
REQUESTED, ACTIVE, FINISHED = "reencrypt_request", "reencrypt_active", "reencrypt_finished"
PROVIDERS = ("aescbc", "secretbox")
#: How tables name the providers.
TYPES = {"aescbc": "AES-CBC", "secretbox": "XSalsa20-POLY1305"}
_IDENTITY: Object = {"identity": {}}
KEY_BYTES = 32
#: Where keys and stage are kept, in `<data-dir>/server/cred`.
CONFIG_FILE, STATE_FILE = "encryption-config.json", "encryption-state.json"


class WrongStage(ValueError):
    """A step that does not come next; the text says what does."""


def initial(provider: str, secret: bytes) -> Object:
    """The first configuration."""
    return _document([_keys(provider, [_key(f"{provider}key", secret)]), _IDENTITY])


def is_enabled(document: Object) -> bool:
    """Whether new Secrets are encrypted."""
    return "identity" not in _providers(document)[0]


def keys(document: Object) -> list[tuple[str, str]]:
    """Provider and name of each key, the one that encrypts first."""
    return [(kind, key["name"]) for kind, body in _listed(document) for key in body]


def switched(document: Object, enabled: bool) -> Object:
    """The configuration with encryption turned on or off; nothing becomes unreadable by that."""
    sealed = [provider for provider in _providers(document) if "identity" not in provider]
    return _document([*sealed, _IDENTITY] if enabled else [_IDENTITY, *sealed])


def prepared(document: Object, provider: str, secret: bytes, now: float) -> Object:
    """The configuration with one more key, which encrypts nothing yet. Raises WrongStage."""
    if not is_enabled(document):
        raise WrongStage("encryption is disabled: enable it first")
    if len(keys(document)) > 1:
        return document  # an attempt that was interrupted left one
    name = f"{provider}key-{times.format(now).replace(':', '')}"
    if (provider, name) in keys(document):
        name += "-2"  # the last one was made in the same second
    key = _key(name, secret)
    groups = _listed(document)
    if groups[-1][0] == provider:
        groups[-1] = (provider, [*groups[-1][1], key])
    else:
        groups.append((provider, [key]))
    return _of_groups(groups)


def rotated(document: Object) -> Object:
    """The configuration in which the newest key encrypts. Raises WrongStage."""
    flat = [(kind, key) for kind, body in _listed(document) for key in body]
    if len(flat) < 2:
        raise WrongStage("there is no second key: prepare one first")
    last, rest = flat[-1], flat[:-1]
    groups: list[tuple[str, list[Object]]] = []
    for kind, key in (last, *rest):
        if groups and groups[-1][0] == kind:
            groups[-1][1].append(key)
        else:
            groups.append((kind, [key]))
    return _of_groups(groups)


def cleaned(document: Object) -> Object:
    """The configuration with no other key than the one that encrypts; itself when encryption is off."""
    if not is_enabled(document):
        return document
    kind, body = _listed(document)[0]
    return _of_groups([(kind, body[:1])])


def status(document: Object, stage: str) -> Object:
    """What `k3s secrets-encrypt status` asks for."""
    found = keys(document)
    shown = [f"{TYPES.get(kind, kind)} {name}" for kind, name in found]
    return {
        "enable": is_enabled(document),
        "stage": stage,
        "hashmatch": True,
        "activekey": shown[0] if shown else "",
        "inactivekeys": shown[1:],
    }


def check_stage(stage: str, step: str, *, force: bool) -> None:
    """Raises WrongStage for a step that does not follow the stage, unless forced."""
    follows = {PREPARE: (START, FINISHED), ROTATE: (PREPARE,), REQUESTED: (ROTATE, START, FINISHED)}
    if step in follows and (force or stage in follows[step]):
        return
    if step not in follows:
        raise WrongStage(f"there is no step {step!r}: use {', '.join(follows)}")
    raise WrongStage(f"the stage is {stage}: {step} comes after {' or '.join(follows[step])}; --force does it anyway")


def _document(providers: list[Object]) -> Object:
    return {
        "kind": "EncryptionConfiguration",
        "apiVersion": "apiserver.config.k8s.io/v1",
        "resources": [{"resources": ["secrets"], "providers": providers}],
    }


def _providers(document: Object) -> list[Object]:
    found: list[Object] = document["resources"][0]["providers"]
    return found


def _listed(document: Object) -> list[tuple[str, list[Object]]]:
    """The groups of keys in order."""
    return [
        (kind, list(body["keys"])) for one in _providers(document) for kind, body in one.items() if kind != "identity"
    ]


def _of_groups(groups: list[tuple[str, list[Object]]]) -> Object:
    return _document([*(_keys(kind, body) for kind, body in groups), _IDENTITY])


def _keys(provider: str, body: list[Object]) -> Object:
    return {provider: {"keys": body}}


def _key(name: str, secret: bytes) -> Object:
    return {"name": name, "secret": base64.b64encode(secret).decode()}
