"""Which plugins run and how: the flags enable-admission-plugins, disable-admission-plugins and the configuration file.

Source: the AdmissionConfiguration type of apiserver.config.k8s.io and the types of each plugin's configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from k3s.api.object import Object

#: Upstream's plugins that run unless they are disabled, and those that run when they are enabled.
DEFAULT = frozenset(
    {
        *("NamespaceLifecycle", "LimitRanger", "ServiceAccount", "TaintNodesByCondition", "PodSecurity", "Priority"),
        *("DefaultTolerationSeconds", "DefaultStorageClass", "StorageObjectInUseProtection"),
        *("PersistentVolumeClaimResize", "RuntimeClass", "CertificateApproval", "CertificateSigning"),
        *("CertificateSubjectRestriction", "DefaultIngressClass", "PodTopologyLabels", "MutatingAdmissionPolicy"),
        *("MutatingAdmissionWebhook", "ValidatingAdmissionPolicy", "ValidatingAdmissionWebhook", "ResourceQuota"),
        "NodeRestriction",  # k3s enables it
    }
)
OPTIONAL = frozenset(
    {
        *("AlwaysAdmit", "AlwaysDeny", "AlwaysPullImages", "DenyServiceExternalIPs", "EventRateLimit"),
        *("ExtendedResourceToleration", "LimitPodHardAntiAffinityTopology", "NamespaceExists"),
        *("OwnerReferencesPermissionEnforcement", "PodNodeSelector", "PodTolerationRestriction"),
    }
)
#: Upstream's names that stand for nothing here: what they are about is checked elsewhere or not served.
ABSENT = frozenset(
    {
        *("ClusterTrustBundleAttest", "JobValidation", "NodeDeclaredFeatureValidator", "PodGroupProtection"),
        *("PodGroupWorkloadExists", "PodResizeValidator"),
    }
)
UNBUILT = frozenset({"ImagePolicyWebhook", "NamespaceAutoProvision"})
_LIMITS = ("Server", "Namespace", "User", "SourceAndObject")
_API_GROUPS = ("apiserver.config.k8s.io/v1", "apiserver.k8s.io/v1alpha1")


class SettingsError(ValueError):
    """A name or a file that cannot be used; the text says which and what to do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The plugins that run, and the configuration of each by its name."""

    enabled: frozenset[str] = DEFAULT
    configuration: Mapping[str, Object] = field(default_factory=dict)

    def of(self, name: str) -> Object:
        """The configuration of a plugin, empty when there is none."""
        return self.configuration.get(name) or {}


#: What runs when nothing is said.
UNSAID = Settings()


def settings(enable: Iterable[str] = (), disable: Iterable[str] = (), file: str = "", base: str = "") -> Settings:
    """From the values of the flags; `base` is a file of which `file` replaces single plugins. Raises SettingsError."""
    on, off = set(enable), set(disable)
    for flag, names in (("enable-admission-plugins", on), ("disable-admission-plugins", off)):
        unknown = sorted(names - DEFAULT - OPTIONAL - ABSENT - UNBUILT)
        if unknown:
            raise SettingsError(f"{flag} names unknown plugins: {', '.join(unknown)}")
    if on & off:
        raise SettingsError(f"these plugins are both enabled and disabled: {', '.join(sorted(on & off))}")
    if on & UNBUILT:
        raise SettingsError(f"these plugins are not built yet, leave them out: {', '.join(sorted(on & UNBUILT))}")
    configuration: dict[str, Object] = {}
    for path in filter(None, (base, file)):
        configuration |= _read(Path(path))
    enabled = frozenset((DEFAULT | on) - off - ABSENT)
    made = Settings(enabled, configuration)
    if "EventRateLimit" in enabled:
        _check_limits(made.of("EventRateLimit"), file)
    return made


def _check_limits(given: Object, file: str) -> None:
    limits = given.get("limits")
    if not limits:
        raise SettingsError("EventRateLimit needs limits: name a file that has them by admission-control-config-file")
    for limit in limits:
        if limit.get("type") not in _LIMITS or not limit.get("qps") or not limit.get("burst"):
            raise SettingsError(
                f"{file}: a limit of EventRateLimit needs qps, burst and a type of {', '.join(_LIMITS)}"
            )


def _read(path: Path) -> dict[str, Object]:
    """The configuration by plugin; a plugin's own may be in a file beside this one."""
    whole = _document(path)
    if whole.get("kind") != "AdmissionConfiguration" or whole.get("apiVersion") not in _API_GROUPS:
        raise SettingsError(f"{path} is no AdmissionConfiguration of {_API_GROUPS[0]}")
    found: dict[str, Object] = {}
    for plugin in whole.get("plugins") or ():
        name = str(plugin.get("name", ""))
        if name not in DEFAULT | OPTIONAL | ABSENT | UNBUILT:
            raise SettingsError(f"{path} configures an unknown plugin: {name or '(without a name)'}")
        own = plugin.get("configuration")
        if own is None and plugin.get("path"):
            own = _document(path.parent / plugin["path"])
        found[name] = own or {}
    return found


def _document(path: Path) -> Object:
    from k3s.api import yamltext

    try:
        found: Any = yamltext.load(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"{path} is no YAML: {error}") from error
    if not isinstance(found, dict):
        raise SettingsError(f"{path} holds no object")
    return found
