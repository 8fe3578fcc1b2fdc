"""What a pod of a StatefulSet keeps over its lives: name, labels, host name, and its volume claims."""

from __future__ import annotations

from k3s.api import object as objects
from k3s.api.object import Object, evolve
from k3s.controllers import history, pods
from k3s.controllers.actions import Action, Create, Update
from k3s.controllers.known import CLAIM
from k3s.controllers.world import World

POD_NAME = "statefulset.kubernetes.io/pod-name"
POD_INDEX = "apps.kubernetes.io/pod-index"


def start(owner: Object) -> int:
    """The first ordinal."""
    return int((owner["spec"].get("ordinals") or {}).get("start", 0))


def ordinal(owner: Object, pod: Object) -> int | None:
    """The number at the end of a pod's name, None when the name is not one of this set."""
    prefix, _, number = objects.name(pod).rpartition("-")
    return int(number) if prefix == objects.name(owner) and number.isdecimal() else None


def pod_name(owner: Object, number: int) -> str:
    """The name of the pod with this ordinal."""
    return f"{objects.name(owner)}-{number}"


def claim_name(template: Object, owner: Object, number: int) -> str:
    """The name of the volume claim that a template makes for one pod."""
    return f"{objects.name(template)}-{pod_name(owner, number)}"


def pod(owner: Object, revision: Object, number: int) -> Object:
    """The pod with this ordinal, made from the template that a revision keeps."""
    kept = revision["data"]["spec"]["template"]
    template = {key: value for key, value in kept.items() if key != "$patch"}
    name = pod_name(owner, number)
    labels = {POD_NAME: name, POD_INDEX: str(number), history.HASH: objects.name(revision)}
    spec = {**template["spec"], "hostname": name}
    if owner["spec"].get("serviceName"):
        spec["subdomain"] = owner["spec"]["serviceName"]
    volumes = _volumes(owner, number, template["spec"].get("volumes") or [])
    if volumes:
        spec["volumes"] = volumes
    return pods.from_template(template, owner, name=name, labels=labels, spec=spec)


def _volumes(owner: Object, number: int, own: list[Object]) -> list[Object]:
    claims = [
        {
            "name": objects.name(template),
            "persistentVolumeClaim": {"claimName": claim_name(template, owner, number), "readOnly": False},
        }
        for template in owner["spec"].get("volumeClaimTemplates") or ()
    ]
    taken = {volume["name"] for volume in claims}
    return claims + [volume for volume in own if volume["name"] not in taken]


def _retention(owner: Object, when: str) -> str:
    policy = owner["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
    return str(policy.get(when, "Retain"))


def missing_claims(owner: Object, number: int, world: World) -> list[Action]:
    """Makes the volume claims of a pod that are not there yet."""
    space = objects.namespace(owner)
    actions: list[Action] = []
    for template in owner["spec"].get("volumeClaimTemplates") or ():
        name = claim_name(template, owner, number)
        if world.get(CLAIM, f"{space}/{name}") is not None:
            continue
        meta = {
            **template["metadata"],
            "name": name,
            "namespace": space,
            "labels": {**objects.labels(template), **(owner["spec"]["selector"].get("matchLabels") or {})},
        }
        if _retention(owner, "whenDeleted") == "Delete":
            meta["ownerReferences"] = [objects.owner_ref(owner, block=False)]
        new = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": template["spec"]}
        actions.append(Create(CLAIM, new, about=owner))
    return actions


def hand_claims_to(owner: Object, condemned: Object, number: int, world: World) -> list[Action]:
    """Lets the claims of a pod that is scaled away go with it, when the retention policy says so."""
    if _retention(owner, "whenScaled") != "Delete":
        return []
    actions: list[Action] = []
    for template in owner["spec"].get("volumeClaimTemplates") or ():
        found = world.get(CLAIM, f"{objects.namespace(owner)}/{claim_name(template, owner, number)}")
        if found is None or any(ref["uid"] == objects.uid(condemned) for ref in objects.owner_refs(found)):
            continue
        refs = [ref for ref in objects.owner_refs(found) if ref["uid"] != objects.uid(owner)]
        refs.append(objects.owner_ref(condemned, controller=False, block=False))
        actions.append(Update(CLAIM, evolve(found, ("metadata", "ownerReferences"), refs)))
    return actions
