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
        *("CertificateSubjectRestriction", "DefaultIngressClass", "PodTopologyLabels", "PodResizeValidator"),
        *("MutatingAdmissionPolicy", "MutatingAdmissionWebhook", "ValidatingAdmissionPolicy"),
        *("ValidatingAdmissionWebhook", "ResourceQuota"),
        "NodeRestriction",  # k3s enables it
    }
)
OPTIONAL = frozenset(
    {
        *("AlwaysAdmit", "AlwaysDeny", "AlwaysPullImages", "DenyServiceExternalIPs", "EventRateLimit"),
        *("ExtendedResourceToleration", "LimitPodHardAntiAffinityTopology", "NamespaceExists"),
        *("OwnerReferencesPermissionEnforcement", "PodNodeSelector", "PodTolerationRestriction"),
        *("ImagePolicyWebhook", "NamespaceAutoProvision"),
    }
)
#: Upstream's plugins that are not here, and why: who asks for one is told.
ABSENT = {
    "ClusterTrustBundleAttest": "ClusterTrustBundles are not served: upstream's gate ClusterTrustBundle is off, too",
    "JobValidation": "upstream's gate WorkloadWithJob, which is off, is what it is about",
    "NodeDeclaredFeatureValidator": "nodes declare no features here, so that there is nothing to hold pods against",
    "PodGroupProtection": "PodGroups are not served: upstream's gate GenericWorkload is off, too",
    "PodGroupWorkloadExists": "Workloads are not served: upstream's gate GenericWorkload is off, too",
}
KNOWN = DEFAULT | OPTIONAL | frozenset(ABSENT)
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
        unknown = sorted(names - KNOWN)
        if unknown:
            raise SettingsError(f"{flag} names unknown plugins: {', '.join(unknown)}")
    if on & off:
        raise SettingsError(f"these plugins are both enabled and disabled: {', '.join(sorted(on & off))}")
    for name in sorted(on & set(ABSENT)):
        raise SettingsError(f"{name} is not here, leave it out: {ABSENT[name]}")
    configuration: dict[str, Object] = {}
    for path in filter(None, (base, file)):
        configuration |= _read(Path(path))
    enabled = frozenset((DEFAULT | on) - off)
    made = Settings(enabled, configuration)
    if "EventRateLimit" in enabled:
        _check_limits(made.of("EventRateLimit"), file)
    if "ImagePolicyWebhook" in enabled:
        _check_images(made.of("ImagePolicyWebhook"))
    if configuration:
        _check_plugins(configuration, file or base)
    return made


def _check_images(given: Object) -> None:
    from k3s.apiserver.admission import imagepolicy

    try:
        imagepolicy.configured(given)
    except imagepolicy.ConfigurationError as error:
        raise SettingsError(str(error)) from error


def _check_plugins(configuration: Mapping[str, Object], file: str) -> None:
    """What plugins themselves find wrong with their configuration."""
    from k3s.api import limited
    from k3s.apiserver.admission import podsecurity

    found = [("PodSecurity", error) for error in podsecurity.configuration_errors(configuration.get("PodSecurity", {}))]
    resources = configuration.get("ResourceQuota", {}).get("limitedResources") or []
    found += [("ResourceQuota", error) for error in limited.configuration_errors(resources)]
    for name, error in found:
        raise SettingsError(f"{file}: {name}: {error}")


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
        if name not in KNOWN:
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
