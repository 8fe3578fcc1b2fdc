"""The checks of the CIS Kubernetes benchmark (2.1, as k3s' own assessment reads it) as rows: number, what, how, remedy.

How a row is looked at: `Files` below the data folder, a `Setting` that the running server or agent wrote down, `Holds`
for what no setting can change here, `Cluster` for what the API tells, `Person` for what only a person can judge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from k3s.base.tls import SUITES
from k3s.cli import cispolicies as policies

SERVER, AGENT = "server", "agent"


@dataclass(frozen=True, slots=True)
class Files:
    """Files below the data folder (a glob) that have no bits but those of `most`, or, without it, belong to root."""

    glob: str
    most: int | None = None

    def __str__(self) -> str:
        return f"`{self.glob}`: " + ("owned by root:root" if self.most is None else f"mode {self.most:o} or less")


@dataclass(frozen=True, slots=True)
class Setting:
    """A value of the role's effective settings, and whether it will do."""

    name: str
    good: Callable[[Any], bool]
    wanted: str

    def __str__(self) -> str:
        return f"{self.name}: {self.wanted}"


@dataclass(frozen=True, slots=True)
class Holds:
    """Nothing can change it; `why` says what makes it so."""

    why: str

    def __str__(self) -> str:
        return f"by construction: {self.why}"


@dataclass(frozen=True, slots=True)
class Cluster:
    """What the cluster's objects say: each text of `look` is something to judge."""

    look: policies.Look
    what: str

    def __str__(self) -> str:
        return f"the cluster: {self.what}"


@dataclass(frozen=True, slots=True)
class Person:
    """Nothing that a program could tell."""

    def __str__(self) -> str:
        return "by a person"


Look = Files | Setting | Holds | Cluster | Person


@dataclass(frozen=True, slots=True)
class Check:
    """One check. What is not `scored` is a warning at most: the benchmark leaves it to a person."""

    number: str
    what: str
    look: Look
    remedy: str = ""
    scored: bool = True

    @property
    def role(self) -> str:
        """Whose check it is."""
        return AGENT if self.number.startswith("4.") else SERVER


def _both(first: str, second: str, what: str, files: str, most: int) -> tuple[Check, Check]:
    """The benchmark asks most files for their mode and, one number on, for their owner."""
    return Check(first, what, Files(files, most)), Check(second, what, Files(files))


def _flag(option: str, text: str) -> str:
    return f"--{option}={text}"


def _api(text: str) -> str:
    return _flag("kube-apiserver-arg", text)


def _without(flag: str) -> str:
    return f"leave out {_api(flag)}"


def _plugin(number: str, name: str, *, on: bool = True, scored: bool = True) -> Check:
    """A plugin of admission that has to run, or must not."""
    word = "enable" if on else "disable"
    remedy = _api(f"{word}-admission-plugins={name}") if on or name != "AlwaysAdmit" else _without(f"enable-…={name}")
    wanted = f"{name} among them" if on else f"without {name}"
    look = Setting("admission-plugins", lambda found: (name in found) is on, wanted)
    return Check(number, f"admission plugin {name} is {'' if on else 'not '}set", look, remedy, scored)


def _at_least(number: str, name: str, least: int) -> Check:
    look = Setting(name, lambda found: found >= least, f"{least} or more")
    return Check(number, name, look, f"--hardened, or {_api(f'{name}={least}')}")


_NO_FILE = "the component is part of k3s: there is no such file"
_NO_ETCD = "the datastore is a file that only this process opens: nothing listens"
_OWN_CERTIFICATES = "k3s makes and renews them; there is no way to go without"
_strong = Setting("tls-cipher-suites", lambda found: set(found) <= set(SUITES), "those with forward secrecy and AEAD")


def _absent(numbers: Sequence[str], what: str) -> tuple[Check, ...]:
    return tuple(
        Check(number, f"{what} ({word})", Holds(_NO_FILE))
        for number, word in zip(numbers, ("mode", "owner") * 9, strict=False)
    )


FILES = (
    *_absent(("1.1.1", "1.1.2"), "API server pod specification"),
    *_absent(("1.1.3", "1.1.4"), "controller manager pod specification"),
    *_absent(("1.1.5", "1.1.6"), "scheduler pod specification"),
    *_absent(("1.1.7", "1.1.8"), "etcd pod specification"),
    *_both("1.1.9", "1.1.10", "container network's configuration", "agent/etc/cni/net.d/*", 0o600),
    Check("1.1.11", "folder of the datastore", Files("server/db", 0o700)),
    Check("1.1.12", "folder of the datastore", Files("server/db")),
    *_both("1.1.13", "1.1.14", "administrator's credential", "server/cred/admin.kubeconfig", 0o600),
    *_both("1.1.15", "1.1.16", "scheduler's credential", "server/cred/scheduler.kubeconfig", 0o600),
    *_both("1.1.17", "1.1.18", "controllers' credential", "server/cred/controller.kubeconfig", 0o600),
    Check("1.1.19", "folder of certificates", Files("server/tls")),
    Check("1.1.19", "certificates and keys", Files("server/tls/**/*")),
    Check("1.1.20", "certificates", Files("server/tls/**/*.crt", 0o644)),
    Check("1.1.21", "keys", Files("server/tls/**/*.key", 0o600)),
)
API_SERVER = (
    Check(
        "1.2.1",
        "anonymous requests are restricted",
        Setting("anonymous-auth", lambda on: on is False, "false: health checks alone need no credential"),
        _without("anonymous-auth=true"),
    ),
    Check(
        "1.2.2",
        "no file of static tokens",
        Setting("token-auth-file", lambda path: not path, "not set"),
        _without("token-auth-file"),
    ),
    _plugin("1.2.3", "DenyServiceExternalIPs", scored=False),
    Check("1.2.4", "client certificate for kubelets", Holds(_OWN_CERTIFICATES)),
    Check("1.2.5", "kubelets' certificates are verified", Holds("against server-ca.crt, always")),
    Check("1.2.6", "authorization is not AlwaysAllow", Holds("Node and RBAC decide, in this order")),
    Check("1.2.7", "authorization includes Node", Holds("Node and RBAC decide, in this order")),
    Check("1.2.8", "authorization includes RBAC", Holds("Node and RBAC decide, in this order")),
    Check(
        "1.2.9",
        "admission plugin EventRateLimit is set",
        Setting("admission-plugins", lambda found: "EventRateLimit" in found, "EventRateLimit among them"),
        f"--hardened, or {_api('enable-admission-plugins=EventRateLimit')} with limits in a configuration file",
        scored=False,
    ),
    _plugin("1.2.10", "AlwaysAdmit", on=False),
    _plugin("1.2.11", "AlwaysPullImages", scored=False),
    _plugin("1.2.12", "ServiceAccount"),
    _plugin("1.2.13", "NamespaceLifecycle"),
    _plugin("1.2.14", "NodeRestriction"),
    Check("1.2.15", "profiling is off", Holds("there are no profiles to ask for")),
    Check(
        "1.2.16",
        "audit log is set",
        Setting("audit-log-path", bool, "a file"),
        f"--hardened, or {_api('audit-log-path=FILE')} and {_api('audit-policy-file=FILE')}",
    ),
    _at_least("1.2.17", "audit-log-maxage", 30),
    _at_least("1.2.18", "audit-log-maxbackup", 10),
    _at_least("1.2.19", "audit-log-maxsize", 100),
    Check(
        "1.2.20",
        "requests end in time",
        Setting("request-timeout", lambda s: 0 < s <= 300, "1 s to 5 minutes"),
        _without("request-timeout"),
        scored=False,
    ),
    Check(
        "1.2.21", "tokens of accounts are looked up", Holds("one counts while the objects exist that it is bound to")
    ),
    Check("1.2.22", "a key signs tokens of accounts", Holds(_OWN_CERTIFICATES)),
    Check("1.2.23", "certificate for etcd", Holds(_NO_ETCD)),
    Check("1.2.24", "serving certificate", Holds(_OWN_CERTIFICATES)),
    Check("1.2.25", "authority of clients", Holds(_OWN_CERTIFICATES)),
    Check("1.2.26", "authority of etcd", Holds(_NO_ETCD)),
    Check(
        "1.2.27",
        "Secrets are encrypted at rest",
        Setting("encryption", lambda found: found not in ("", "identity"), "a provider comes first for Secrets"),
        "--hardened or --secrets-encryption, then k3s secrets-encrypt reencrypt for what is there already",
        scored=False,
    ),
    Check(
        "1.2.28",
        "encryption provider",
        Setting("encryption", lambda found: found in ("aescbc", "aesgcm", "secretbox", "kms"), "a cipher"),
        "--secrets-encryption-provider=secretbox, or aescbc",
        scored=False,
    ),
    Check("1.2.29", "strong cipher suites", _strong, _without("tls-cipher-suites")),
    Check(
        "1.2.30",
        "tokens of pods are not extended",
        Setting("service-account-extend-token-expiration", lambda on: on is False, "false"),
        f"--hardened, or {_api('service-account-extend-token-expiration=false')}",
    ),
)
COMPONENTS = (
    Check(
        "1.3.1",
        "ended pods are cleared away",
        Setting("terminated-pod-gc-threshold", lambda most: 0 < most <= 12500, "1 to 12500"),
        "--hardened, or --kube-controller-manager-arg=terminated-pod-gc-threshold=10",
        scored=False,
    ),
    Check("1.3.2", "controllers: profiling is off", Holds("there are no profiles to ask for")),
    Check("1.3.3", "each controller has an account of its own", Holds("and the rights of it alone")),
    Check("1.3.4", "controllers: key that signs tokens", Holds(_OWN_CERTIFICATES)),
    Check("1.3.5", "controllers: authority that pods are given", Holds(_OWN_CERTIFICATES)),
    Check("1.3.6", "kubelets' serving certificates are renewed", Holds("agents ask for new ones before they end")),
    Check("1.3.7", "controllers listen at loopback alone", Holds("they listen nowhere")),
    Check("1.4.1", "scheduler: profiling is off", Holds("there are no profiles to ask for")),
    Check("1.4.2", "scheduler listens at loopback alone", Holds("it listens nowhere")),
)
DATASTORE = tuple(
    Check(f"2.{n}", what, Holds(_NO_ETCD))
    for n, what in enumerate(
        (
            "datastore: certificate",
            "datastore: clients show certificates",
            "datastore: no certificates of its own making",
            "datastore: certificate for peers",
            "datastore: peers show certificates",
            "datastore: no certificates of its own making for peers",
            "datastore: an authority of its own",
        ),
        1,
    )
)
CONTROL_PLANE = (
    Check("3.1.1", "people do not come with client certificates", Person(), "use oidc-* or another issuer", False),
    Check("3.1.2", "people do not come with tokens of accounts", Person(), "use oidc-* or another issuer", False),
    Check("3.1.3", "people do not come with bootstrap tokens", Person(), "use oidc-* or another issuer", False),
    Check(
        "3.2.1",
        "there is an audit policy",
        Setting("audit-policy-file", bool, "a file"),
        f"--hardened, or {_api('audit-policy-file=FILE')}",
    ),
    Check("3.2.2", "the audit policy covers what matters", Person(), "--hardened has one at level Metadata", False),
)
NODE = (
    *_absent(("4.1.1", "4.1.2"), "kubelet service file"),
    *_both("4.1.3", "4.1.4", "service routing's credential", "agent/client-kube-proxy.key", 0o600),
    *_both("4.1.5", "4.1.6", "kubelet's credential", "agent/client-kubelet.key", 0o600),
    *_both("4.1.7", "4.1.8", "authority of the kubelet's clients", "agent/client-ca.crt", 0o644),
    *_absent(("4.1.9", "4.1.10"), "kubelet configuration file"),
    Check("4.2.1", "kubelet: nobody is anonymous", Holds("every caller shows a certificate or a token")),
    Check("4.2.2", "kubelet: authorization is not AlwaysAllow", Holds("the API server is asked")),
    Check("4.2.3", "kubelet: authority of clients", Holds(_OWN_CERTIFICATES)),
    Check("4.2.4", "kubelet: no read-only port", Holds("there is none")),
    Check(
        "4.2.5",
        "kubelet: idle streams end",
        Setting("streaming-connection-idle-timeout", lambda s: s > 0, "not 0"),
        "--hardened, or --kubelet-arg=streaming-connection-idle-timeout=5m",
        scored=False,
    ),
    Check("4.2.6", "kubelet: chains of packet rules are kept", Holds("service routing keeps a table of its own")),
    Check(
        "4.2.7",
        "kubelet: name of the node",
        Holds("the host's, or --node-name where providers need another"),
        "",
        False,
    ),
    Check("4.2.8", "kubelet: events are not lost", Holds("none is held back")),
    Check("4.2.9", "kubelet: serving certificate", Holds(_OWN_CERTIFICATES)),
    Check("4.2.10", "kubelet: certificates are renewed", Holds("before they end")),
    Check("4.2.11", "kubelet: serving certificate is renewed", Holds("before it ends")),
    Check("4.2.12", "kubelet: strong cipher suites", _strong, "leave out --kubelet-arg=tls-cipher-suites", False),
    Check("4.2.13", "kubelet: pods have a limit of processes", Person(), "pod-max-pids is not built yet", False),
    Check(
        "4.2.14",
        "kubelet: seccomp by default",
        Setting("seccomp-default", lambda on: on is True, "true"),
        "--hardened, or --kubelet-arg=seccomp-default=true",
        scored=False,
    ),
    Check(
        "4.2.k",
        "the kernel's settings are a kubelet's",
        Setting("kernel", lambda wrong: not wrong, "as in docs/security.md"),
        "write them into /etc/sysctl.d/90-kubelet.conf and run sysctl --system",
        scored=False,
    ),
    Check("4.3.1", "service routing: figures at loopback alone", Holds("it listens nowhere")),
)


def _granted(number: str, what: str, verbs: Sequence[str], *resources: str) -> Check:
    look = Cluster(policies.granting(frozenset(verbs), frozenset(resources)), "roles that are not upstream's own")
    return Check(number, what, look, "give fewer rights where that will do", False)


def _pod_security(number: str, what: str, level: str) -> Check:
    look = Cluster(policies.below(level), f"namespaces whose pods need not be {level}")
    return Check(number, what, look, "--hardened, or the label pod-security.kubernetes.io/enforce", False)


POLICIES = (
    Check(
        "5.1.1", "cluster-admin where it is needed", Cluster(policies.admins, "who has it"), "use a smaller role", False
    ),
    _granted("5.1.2", "access to Secrets", ("get", "list", "watch"), "secrets"),
    Check(
        "5.1.3",
        "wildcards in roles",
        Cluster(policies.wildcards, "roles that are not upstream's own"),
        "name them",
        False,
    ),
    _granted("5.1.4", "who may create pods", ("create",), "pods"),
    Check(
        "5.1.5",
        "default accounts are not used",
        Cluster(policies.default_accounts, "pods with the default account's token"),
        "give each workload an account, and default ones automountServiceAccountToken: false",
        False,
    ),
    Check(
        "5.1.6",
        "tokens where they are needed",
        Cluster(policies.mounted_tokens, "pods that mount a token"),
        "automountServiceAccountToken: false",
        False,
    ),
    Check("5.1.7", "group system:masters", Cluster(policies.masters, "bindings"), "use a smaller role", False),
    _granted("5.1.8", "bind, impersonate, escalate", ("bind", "impersonate", "escalate"), "*"),
    _granted("5.1.9", "who may create persistent volumes", ("create",), "persistentvolumes"),
    _granted("5.1.10", "who may use nodes/proxy", ("get", "create"), "nodes/proxy"),
    _granted("5.1.11", "who may approve certificates", ("update", "patch"), "certificatesigningrequests/approval"),
    _granted(
        "5.1.12",
        "who may change webhooks",
        ("create", "update", "patch", "delete"),
        "validatingwebhookconfigurations",
        "mutatingwebhookconfigurations",
    ),
    _granted("5.1.13", "who may make tokens of accounts", ("create",), "serviceaccounts/token"),
    _pod_security("5.2.1", "a policy control is in place", "baseline"),
    _pod_security("5.2.2", "privileged containers", "baseline"),
    _pod_security("5.2.3", "host's process ids", "baseline"),
    _pod_security("5.2.4", "host's IPC", "baseline"),
    _pod_security("5.2.5", "host's network", "baseline"),
    _pod_security("5.2.6", "privilege escalation", "restricted"),
    _pod_security("5.2.7", "containers of root", "restricted"),
    _pod_security("5.2.8", "capability NET_RAW", "restricted"),
    _pod_security("5.2.9", "capabilities", "restricted"),
    _pod_security("5.2.10", "host processes of Windows", "baseline"),
    _pod_security("5.2.11", "hostPath volumes", "baseline"),
    _pod_security("5.2.12", "host ports", "baseline"),
    Check(
        "5.3.1",
        "network policies are enforced",
        Person(),
        "not built yet: bring a CNI with --flannel-backend=none",
        False,
    ),
    Check(
        "5.3.2",
        "namespaces have network policies",
        Cluster(policies.without_network_policy, "namespaces with pods and no policy"),
        "create NetworkPolicies",
        False,
    ),
    Check(
        "5.4.1",
        "Secrets as files",
        Cluster(policies.secrets_in_environments, "pods with Secrets in their environment"),
        "mount them",
        False,
    ),
    Check("5.4.2", "Secrets outside of the cluster", Person(), "consider a store of secrets", False),
    Check(
        "5.5.1",
        "provenance of images",
        Setting("admission-plugins", lambda found: "ImagePolicyWebhook" in found, "ImagePolicyWebhook among them"),
        _api("enable-admission-plugins=ImagePolicyWebhook"),
        False,
    ),
    Check("5.6.1", "namespaces as boundaries", Person(), "one for each workload or team", False),
    Check(
        "5.6.2",
        "pods have a seccomp profile",
        Cluster(policies.without_seccomp, "pods that name none"),
        "seccompProfile: {type: RuntimeDefault}",
        False,
    ),
    Check(
        "5.6.3",
        "pods have a security context",
        Cluster(policies.without_context, "pods where a container has none"),
        "securityContext",
        False,
    ),
    Check("5.6.4", "namespace default is not used", Cluster(policies.in_default, "pods in it"), "use others", False),
)
SECTIONS = (
    ("1.1", "control plane: files", FILES),
    ("1.2", "API server", API_SERVER),
    ("1.3", "controllers and scheduler", COMPONENTS),
    ("2", "datastore", DATASTORE),
    ("3", "authentication and audit", CONTROL_PLANE),
    ("4", "node", NODE),
    ("5", "policies", POLICIES),
)
CHECKS = tuple(check for _, _, rows in SECTIONS for check in rows)
