"""The Pod Security Standards, with texts recorded from upstream."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.apiserver.admission_world import ALICE, SPACE, World, at_once, obj, pod, refusal
from tests.unit.apiserver.test_optional_admission import Optional

from k3s.api.errors import Forbidden, Invalid
from k3s.api.object import Object
from k3s.apiserver.admission import defaults, podsecurity
from k3s.apiserver.admission.podsecurity import configuration_errors, standards
from k3s.apiserver.admission.podstandards import violations
from k3s.apiserver.admission.settings import Settings
from k3s.apiserver.admits import AdmissionRequest
from k3s.base.entropy import SeededEntropy


def labelled(**labels: str) -> Object:
    named = {f"pod-security.kubernetes.io/{key.replace('_', '-')}": value for key, value in labels.items()}
    return obj("v1", "Namespace", "a", metadata={"labels": named})


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (
            {"hostNetwork": True, "hostPID": True, "volumes": [{"name": "h", "hostPath": {"path": "/"}}]},
            'host namespaces (hostNetwork=true, hostPID=true), hostPath volumes (volume "h")',
        ),
        (
            {
                "containers": [
                    {
                        "name": "c",
                        "securityContext": {"privileged": True, "capabilities": {"add": ["SYS_ADMIN"]}},
                        "ports": [{"containerPort": 1, "hostPort": 1}],
                    }
                ]
            },
            'non-default capabilities (container "c" must not include "SYS_ADMIN" in '
            "securityContext.capabilities.add), "
            'hostPort (container "c" uses hostPort 1), '
            'privileged (container "c" must not set securityContext.privileged=true)',
        ),
        (
            {
                "securityContext": {
                    "sysctls": [{"name": "kernel.msgmax", "value": "1"}],
                    "seccompProfile": {"type": "Unconfined"},
                }
            },
            'seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined"), '
            "forbidden sysctls (kernel.msgmax)",
        ),
    ],
)
def test_baseline(spec: Object, text: str) -> None:
    """What the baseline standard refuses."""
    world = World(labelled(enforce="baseline"))
    wanted = {"automountServiceAccountToken": False, **spec}
    assert (
        refusal(world.create, pod(wanted)) == f'pods "p" is forbidden: violates PodSecurity "baseline:latest": {text}'
    )


def test_restricted_warns() -> None:
    """What the restricted standard warns of, at the version that the label names."""
    world = World(labelled(warn="restricted", warn_version="v1.30"))
    world.create(pod({"hostNetwork": True, "automountServiceAccountToken": False}))
    assert world.warnings == [
        'would violate PodSecurity "restricted:v1.30": host namespaces (hostNetwork=true), '
        'allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false), '
        'unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]), '
        'runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true), '
        'seccompProfile (pod or container "c" must set securityContext.seccompProfile.type '
        'to "RuntimeDefault" or "Localhost")'
    ]


def test_restricted_accepts_a_careful_pod() -> None:
    """A pod that gives up what it does not need passes, with its token volume."""
    careful = {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "c",
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }
        ],
    }
    World(labelled(enforce="restricted")).create(pod(careful))


def test_unknown_level_is_the_strictest() -> None:
    """A level that nobody knows is refused when set, and read as restricted when it is there."""
    with pytest.raises(Invalid, match="must be one of privileged, baseline, restricted"):
        World().create(labelled(enforce="strict"))
    assert "restricted:latest" in refusal(World(labelled(enforce="strict")).create, pod())


def configured(**own: Any) -> Optional:
    """A world with this configuration of the plugin."""
    world = Optional()
    plugin = {"PodSecurity": own}
    given = Settings(configuration=plugin)
    world.chain = defaults.chain(world.reader, world.authorizer, world.clock, SeededEntropy(1), settings=given)
    return world


def asked(world: World, new: Object, old: Object | None = None, **more: Any) -> AdmissionRequest:
    """The request after the chain has judged it."""
    request = world.request("UPDATE" if old else "CREATE", new, old, **more)
    at_once(world.chain.validate(request))
    return request


_PREFIX = "pod-security.kubernetes.io/"
_HOST = {"hostNetwork": True, "automountServiceAccountToken": False}


@pytest.mark.parametrize(
    ("labels", "levels"),
    [
        ({"enforce": "baseline"}, ("baseline:latest", "privileged:latest", "baseline:latest")),
        (
            {"enforce": "baseline", "enforce-version": "v1.20"},
            ("baseline:v1.20", "privileged:latest", "baseline:v1.20"),
        ),
        ({"enforce": "baseline", "warn": "privileged"}, ("baseline:latest", "privileged:latest", "privileged:latest")),
        ({"enforce": "baseline", "warn-version": "v1.9"}, ("baseline:latest", "privileged:latest", "baseline:v1.9")),
        ({"enforce": "strict"}, ("restricted:latest", "privileged:latest", "privileged:latest")),
        ({"audit": "strict", "warn": "strict"}, ("privileged:latest",) * 3),
        ({"enforce": "baseline", "enforce-version": "x"}, ("baseline:latest", "privileged:latest", "baseline:latest")),
    ],
)
def test_what_labels_stand_for(labels: dict[str, str], levels: tuple[str, str, str]) -> None:
    """A level to enforce is warned of, too, unless the warning has its own; what nobody knows is read safely."""
    named = {f"{_PREFIX}{key}": value for key, value in labels.items()}
    found = standards(named, named)
    assert tuple(str(found[mode]) for mode in ("enforce", "audit", "warn")) == levels


def test_the_audit_log_is_told() -> None:
    """The enforced standard of each pod, what it breaks also when it is refused, labels that nobody understands."""
    assert asked(World(), pod(_HOST)).audit == {f"{_PREFIX}enforce-policy": "privileged:latest"}
    world = World(labelled(enforce="baseline", audit="baseline"))
    request = world.request("CREATE", pod(_HOST))
    with pytest.raises(Forbidden):
        at_once(world.chain.validate(request))
    why = "host namespaces (hostNetwork=true)"
    assert request.audit == {
        f"{_PREFIX}enforce-policy": "baseline:latest",
        f"{_PREFIX}audit-violations": f'would violate PodSecurity "baseline:latest": {why}',
    }
    told = asked(World(labelled(audit="odd")), pod(_HOST)).audit[f"{_PREFIX}error"]
    assert told.startswith(f'Failed to parse policy: metadata.labels[{_PREFIX}audit]: Invalid value: "odd": must be')


def test_exemptions() -> None:
    """Of namespaces, users and runtime classes: nothing is refused or warned of, and the audit log says why."""
    strict = {"enforce": "restricted", "warn": "restricted"}
    for exemptions, what, more in (
        ({"namespaces": ["a"]}, "namespace", {}),
        ({"usernames": ["alice"]}, "user", {"user": ALICE}),
        ({"runtimeClasses": ["sealed"]}, "runtimeClass", {}),
    ):
        world = configured(defaults=strict, exemptions=exemptions)
        found = asked(world, pod({**_HOST, "runtimeClassName": "sealed"}), **more)
        assert (found.audit, found.warnings) == ({f"{_PREFIX}exempt": what}, [])
    with pytest.raises(Forbidden):
        asked(configured(defaults=strict, exemptions={"usernames": ["bob"]}), pod(_HOST), user=ALICE)


def test_a_namespace_made_stricter() -> None:
    """Its pods are told by reason, counted and in order; not when it becomes laxer, and not of exempt classes."""
    pods = [pod({**_HOST, "hostPID": True}, name="b"), pod(_HOST, name="c"), pod(_HOST, name="a"), pod(name="fine")]
    pods.append(pod({**_HOST, "runtimeClassName": "sealed"}, name="d"))

    def warned(new: Object, old: Object, world: World) -> list[str]:
        for one in pods:
            world.reader.put(one)
        return asked(world, new, old).warnings

    start = 'existing pods in namespace "a" violate the new PodSecurity enforce level '
    assert warned(labelled(enforce="baseline"), SPACE, configured(exemptions={"runtimeClasses": ["sealed"]})) == [
        f'{start}"baseline:latest"',
        "a (and 2 other pods): host namespaces",
    ]
    laxer = labelled(enforce="baseline"), labelled(enforce="restricted")
    assert warned(*laxer, World()) == []
    other = labelled(enforce="baseline", enforce_version="v1.20"), labelled(enforce="restricted")
    assert warned(*other, World())[0] == f'{start}"baseline:v1.20"'
    assert warned(labelled(enforce="baseline"), SPACE, configured(exemptions={"namespaces": ["a"]})) == []


def test_a_namespace_with_very_many_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not all are looked at, which is said first."""
    monkeypatch.setattr(podsecurity, "_MOST_PODS", 2)
    world = World(*(pod(_HOST, name=f"p{i}") for i in range(3)))
    told = asked(world, labelled(enforce="baseline"), SPACE).warnings
    assert told[0] == "new PodSecurity enforce level only checked against the first 2 of 3 existing pods"
    assert told[2] == "p0 (and 1 other pod): host namespaces"


def test_updates_of_pods_that_change_nothing_of_it() -> None:
    """Labels may change; images, ephemeral containers and the annotations of old are judged again."""
    world = World(labelled(enforce="baseline"))
    old = pod(_HOST)
    asked(world, pod(_HOST, labels={"x": "y"}), old)
    debug = {**_HOST, "ephemeralContainers": [{"name": "d", "image": "i"}]}
    for new, part in (
        (pod({**_HOST, "containers": [{"name": "c", "image": "other"}]}), ""),
        (pod(debug), "ephemeralcontainers"),
        (pod(_HOST, annotations={"seccomp.security.alpha.kubernetes.io/pod": "unconfined"}), ""),
    ):
        with pytest.raises(Forbidden):
            asked(world, new, old, subresource=part)
    asked(world, pod({**debug, "x": 1}), pod(debug), subresource="ephemeralcontainers")


def test_versions_have_their_own_checks() -> None:
    """Annotations before 1.19, hosts of probes from 1.34, users of their own from 1.35; later ones are the newest."""
    noted = pod(annotations={"container.seccomp.security.alpha.kubernetes.io/c": "unconfined"})
    note = 'container.seccomp.security.alpha.kubernetes.io/c="unconfined"'
    assert violations(noted, "baseline", 18) == [f"seccompProfile (forbidden annotation {note})"]
    assert violations(noted, "baseline", 19) == []
    probe = {"httpGet": {"port": 1, "host": "10.0.0.1"}}
    probing = pod({"containers": [{"name": n, "livenessProbe": probe} for n in ("b", "a")]})
    told = 'probe or lifecycle host (containers "a", "b" use probe or lifecycle host "10.0.0.1")'
    assert (violations(probing, "baseline", 33), violations(probing, "baseline", 34)) == ([], [told])
    assert violations(probing, "baseline", 99) == [told]
    own = pod({"hostUsers": False, "containers": [{"name": "c", "securityContext": {"procMount": "Unmasked"}}]})
    assert [bool(violations(own, "baseline", minor)) for minor in (34, 35)] == [True, False]
    ports = [{"containerPort": 1, "hostPort": port} for port in (9, 10)]
    many = pod({"containers": [{"name": "c", "ports": ports}]})
    assert violations(many, "baseline", 36) == ['hostPort (container "c" uses hostPorts 10, 9)']  # as texts


def test_a_pod_that_says_it_may_be_root() -> None:
    """The pod's own word is held against it, whatever its containers say."""
    container = {"name": "c", "securityContext": {"runAsNonRoot": True}}
    rooted = pod({"securityContext": {"runAsNonRoot": False}, "containers": [container]})
    told = "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false)"
    assert told in violations(rooted, "restricted", 36)


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"defaults": {"enforce": "strict"}}, 'defaults.enforce: Invalid value: "strict": must be one of'),
        ({"defaults": {"warn-version": "1.3"}}, 'defaults.warn-version: Invalid value: "1.3": must be "latest" or'),
        ({"defaults": {"enforced": "baseline"}}, "defaults.enforced: there is no such field"),
        ({"exemptions": {"users": []}}, "exemptions.users: there is no such field"),
        ({"exemptions": {"namespaces": ["a", "a"]}}, 'exemptions.namespaces: Duplicate value: "a"'),
        ({"exemptions": {"usernames": [""]}}, "exemptions.usernames: '' is no name"),
    ],
)
def test_wrong_configurations(own: Object, says: str) -> None:
    """Each is told by its field."""
    assert next(configuration_errors(own)).startswith(says)
    assert list(configuration_errors({"defaults": {"enforce": "baseline", "enforce-version": "v1.3"}})) == []
