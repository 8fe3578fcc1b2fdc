"""The Pod Security Standards, with texts recorded from upstream."""

from __future__ import annotations

import pytest
from tests.unit.apiserver.admission_world import World, obj, pod, refusal

from k3s.api.errors import Invalid
from k3s.api.object import Object


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
