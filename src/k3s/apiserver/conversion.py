"""Objects in another version of their kind: computed where the versions are ours, asked for where a definition says so.

An answer of a conversion webhook is held to upstream's rules: the same objects in the same order, in the version that
was asked for; of their metadata only labels and annotations may differ. Source: "Versions in
CustomResourceDefinitions", Kubernetes documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from k3s.api import convert, schema
from k3s.api.errors import ApiError
from k3s.api.kinds import Kind, Registry, split_api_version
from k3s.api.object import Object, encode
from k3s.api.validation.causes import labels
from k3s.api.validation.meta import annotation_keys
from k3s.api.views import View, Views
from k3s.apiserver.cache import Change, Convert, Item, divided, head_of, serialise
from k3s.apiserver.considered import beside
from k3s.base.entropy import Entropy

if TYPE_CHECKING:
    from k3s.apiserver.admission.webhookclient import WebhookClient

T = TypeVar("T")
# As long as upstream's client waits.
_TIMEOUT_S = 30.0
# Objects of one question: a webhook holds all of them, twice, in memory.
_BATCH = 100
_REVIEWS = ("v1", "v1beta1")


def computed(registry: Registry) -> Callable[[Object, Kind], Object]:
    """How an object becomes the same object in another version of its kind, without asking anybody.

    What this answers raises ApiError for an object that only a webhook can convert.
    """

    def converted(obj: Object, kind: Kind) -> Object:
        if obj["apiVersion"] == kind.api_version:
            return obj
        if kind.webhook is not None:
            raise ApiError(f"{_named(obj)} becomes {kind.api_version} by a webhook, which is not asked here", code=500)
        if kind.custom:
            return {**obj, "apiVersion": kind.api_version}
        source = registry.of(obj)
        return obj if source is None else convert.convert(obj, source, kind)

    return converted


class _Unseen(Exception):
    """A webhook has to be asked how a version sees an object."""

    def __init__(self, obj: Object, kind: Kind) -> None:
        super().__init__()
        self.obj = obj
        self.kind = kind


class BadAnswer(Exception):
    """A webhook's answer that is not what was asked for."""


class Conversions:
    """Converts items and objects; asks a webhook where it has to."""

    def __init__(self, registry: Registry, convert: Convert, client: WebhookClient, entropy: Entropy) -> None:
        self._registry = registry
        self._convert = convert
        self._client = client
        self._entropy = entropy

    def foreign(self, kind: Kind, item: Item | None) -> bool:
        """Whether a webhook has to be asked for this item as `kind`."""
        return kind.webhook is not None and item is not None and item.head != head_of(kind)

    async def item(self, item: Item, kind: Kind) -> Item:
        """The item as one of `kind`. Raises ApiError."""
        return (await self.items([item], kind))[0]

    async def items(self, items: Sequence[Item], kind: Kind) -> list[Item]:
        """The items as such of `kind`, in order. Raises ApiError."""
        foreign = [item for item in items if self.foreign(kind, item)]
        objects = await self._asked([item.obj for item in foreign], kind, kind.api_version)
        made = iter([self._item(item, obj, kind) for item, obj in zip(foreign, objects, strict=True)])
        return [next(made) if self.foreign(kind, item) else item for item in items]

    def _item(self, item: Item, obj: Object, kind: Kind) -> Item:
        pruned, _ = schema.prune(kind, obj)
        obj = schema.defaults(kind, pruned)
        head, tail = divided(serialise(obj), item.revision)
        return Item(item.namespace, item.name, item.revision, item.created, head, tail)

    async def changes(self, changes: Sequence[Change], kind: Kind) -> list[Change]:
        """Changes between items of `kind`, in order. Raises ApiError."""
        old = [change.old for change in changes if change.old is not None]
        items = await self.items([*(change.item for change in changes), *old], kind)
        before = iter(items[len(changes) :])
        return [
            Change(item, next(before) if change.old is not None else None, change.deleted)
            for change, item in zip(changes, items, strict=False)
        ]

    async def object(self, obj: Object, kind: Kind) -> Object:
        """An object as one of `kind`. Raises ApiError."""
        if kind.webhook is None or obj["apiVersion"] == kind.api_version:
            return self._convert(obj, kind)
        made = (await self._asked([obj], kind, kind.api_version))[0]
        return schema.defaults(kind, schema.prune(kind, made)[0])

    async def stored(self, obj: Object, kind: Kind) -> Object:
        """An object of `kind` in the version that the datastore gets. Raises ApiError."""
        if kind.webhook is not None:
            made = (await self._asked([obj], kind, kind.storage_version))[0]
            row = self._registry.storage_kind(kind)
            return schema.prune(row, made)[0] if row.is_storage_version else made
        if kind.custom:
            return {**obj, "apiVersion": kind.storage_version}
        return self._convert(obj, self._registry.storage_kind(kind))

    async def viewing(self, kind: Kind, work: Callable[[Views], T], *, heavy: bool = False) -> T:
        """What `work` makes with the versions of a kind, as their managers see its objects.

        Where a webhook has to be asked, `work` is begun anew with its answer. It runs beside the loop when it is
        `heavy`. Raises what `work` raises, and ApiError.
        """
        known: dict[tuple[str, bytes], Object] = {}
        while True:
            try:
                return await beside(heavy, partial(work, self.views(kind, known)))
            except _Unseen as unseen:
                made = (await self._asked([unseen.obj], unseen.kind, unseen.kind.api_version))[0]
                known[unseen.kind.api_version, encode(unseen.obj)] = schema.prune(unseen.kind, made)[0]

    def views(self, kind: Kind, known: Mapping[tuple[str, bytes], Object]) -> Views:
        """The versions of a kind; `known` are the answers of its webhook, by version and object."""

        def view(api_version: str) -> View | None:
            row = self._registry.by_kind(*split_api_version(api_version), kind.kind)
            if row is None or row.storage_prefix != kind.storage_prefix:
                return None
            return View(schema.definition_of(row), lambda obj: self._seen(obj, row, known))

        return view

    def _seen(self, obj: Object, kind: Kind, known: Mapping[tuple[str, bytes], Object]) -> Object:
        if kind.webhook is not None and obj.get("apiVersion") != kind.api_version:
            found = known.get((kind.api_version, encode(obj)))
            if found is None:
                raise _Unseen(obj, kind)
            return found
        source = None if kind.custom else self._registry.of(obj)
        return {**obj, "apiVersion": kind.api_version} if source is None else convert.reshape(obj, source, kind)

    async def _asked(self, objects: Sequence[Object], kind: Kind, api_version: str) -> list[Object]:
        made: list[Object] = []
        for start in range(0, len(objects), _BATCH):
            made += await self._ask(objects[start : start + _BATCH], kind, api_version)
        return made

    async def _ask(self, objects: Sequence[Object], kind: Kind, api_version: str) -> list[Object]:
        from k3s.apiserver.admission.webhookclient import CallFailed

        assert kind.webhook is not None
        version = next((v for v in kind.webhook.get("conversionReviewVersions") or () if v in _REVIEWS), "v1")
        uid = self._entropy.uid()
        asked = {"uid": uid, "desiredAPIVersion": api_version, "objects": list(objects)}
        review = {"kind": "ConversionReview", "apiVersion": f"apiextensions.k8s.io/{version}", "request": asked}
        who = f"conversion webhook for {_named(objects[0])}"
        try:
            answer = await self._client.ask(kind.webhook.get("clientConfig") or {}, review, _TIMEOUT_S)
            found = _objects(answer, uid, version)
        except (CallFailed, BadAnswer) as error:
            raise ApiError(f"{who} failed: {error}", code=500) from error
        if len(found) != len(objects):
            raise ApiError(f"{who} returned {len(found)} objects, expected {len(objects)}", code=500)
        try:
            return [_restored(old, new, api_version) for old, new in zip(objects, found, strict=True)]
        except BadAnswer as error:
            raise ApiError(f"{who} returned invalid {error}", code=500) from error


def _named(obj: Object) -> str:
    """As Go shows a group, version and kind."""
    return f"{obj['apiVersion']}, Kind={obj['kind']}"


def _objects(answer: Any, uid: str, version: str) -> Sequence[Any]:
    """The objects of a review's answer. Raises BadAnswer."""
    answer = answer if isinstance(answer, Mapping) else {}
    response = answer.get("response")
    if version == "v1":
        expected, got = f"apiextensions.k8s.io/{version}", str(answer.get("apiVersion", ""))
        if (got, answer.get("kind")) != (expected, "ConversionReview"):
            shown = f"{_named({'apiVersion': got, 'kind': answer.get('kind', '')})}"
            raise BadAnswer(f"expected webhook response of {expected}, Kind=ConversionReview, got {shown}")
    if not isinstance(response, Mapping):
        raise BadAnswer("no response provided")
    if version == "v1" and response.get("uid") != uid:
        raise BadAnswer(f'expected response.uid="{uid}", got "{response.get("uid", "")}"')
    result = response.get("result")
    result = result if isinstance(result, Mapping) else {}
    if result.get("status") != "Success":
        status = result.get("status", "")
        raise BadAnswer(str(result.get("message") or f"response.result.status was '{status}', not 'Success'"))
    found = response.get("convertedObjects")
    return found if isinstance(found, list) else []


def _restored(old: Object, new: Any, api_version: str) -> Object:
    """A converted object with the metadata of the original one; labels and annotations are the webhook's."""
    if not isinstance(new, dict):
        raise BadAnswer("object: it is no object")
    at = "object at index 0: "
    if new.get("apiVersion") != api_version:
        given = new.get("apiVersion", "")
        raise BadAnswer(f"{at}invalid groupVersion (expected {api_version}, received {given})")
    if new.get("kind") != old["kind"]:
        raise BadAnswer(f"{at}invalid kind (expected {old['kind']}, received {new.get('kind', '')})")
    meta, before = new.get("metadata"), old["metadata"]
    if not isinstance(meta, dict):
        raise BadAnswer("metadata: missing metadata in converted object")
    for field, shown in (("name", "name"), ("namespace", "namespace"), ("uid", "UID")):
        if (meta.get(field) or "") != (before.get(field) or ""):
            was, is_now = before.get(field, ""), meta.get(field, "")
            raise BadAnswer(f"object: must have the same {shown}: {was} != {is_now}")
    kept = {field: value for field, value in before.items() if field not in _CHANGEABLE}
    return {**new, "metadata": {**kept, **_changed(meta)}}


_CHANGEABLE = {"labels": labels, "annotations": annotation_keys}


def _changed(meta: Object) -> Object:
    made: Object = {}
    for field, rule in _CHANGEABLE.items():
        value = meta.get(field)
        if value is None:
            continue
        if not isinstance(value, dict):
            raise BadAnswer(f"metadata: invalid metadata.{field} of type {type(value).__name__} in converted object")
        for key, text in value.items():
            if not isinstance(text, str):
                what = f"metadata.{field}[{key}] must be a string, but is {type(text).__name__} in converted object"
                raise BadAnswer(f"metadata: {what}")
        causes = list(rule(f"metadata.{field}", value))
        if causes:
            raise BadAnswer("metadata: " + ", ".join(f"{c['field']}: {c['message']}" for c in causes))
        made[field] = value
    return made
