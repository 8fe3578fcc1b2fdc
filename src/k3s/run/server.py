"""The server process put together: every part is made here, handed what it needs, and run as a service.

The order of the services is the order of starting; they stop in reverse (see `run.supervisor`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from k3s import VERSION
from k3s.api import object as objects
from k3s.api.kinds import REGISTRY, Registry, builtin
from k3s.api.object import Object, encode
from k3s.apiserver import accounttokens, identity
from k3s.apiserver.accounttokens import AccountTokenError
from k3s.apiserver.admission import defaults as admission
from k3s.apiserver.aggregation import metrics
from k3s.apiserver.aggregation.aggregator import Others
from k3s.apiserver.aggregation.metrics import Metrics
from k3s.apiserver.audit.settings import auditor
from k3s.apiserver.authn import NAMED_PATHS, Authenticator, Credentials, parse_token_file
from k3s.apiserver.authorization.choice import authorizer
from k3s.apiserver.bootstrap import trust
from k3s.apiserver.cache import Cache
from k3s.apiserver.conversion import computed
from k3s.apiserver.expiry import Expiry
from k3s.apiserver.nodes import Nodes
from k3s.apiserver.pending import Pending
from k3s.apiserver.plain import Check
from k3s.apiserver.presence import Presence, name_of
from k3s.apiserver.request import Target
from k3s.apiserver.server import ApiServer, ApiServerConfig
from k3s.apiserver.tokenissuer import Issuer
from k3s.apiserver.tokens import Verifier
from k3s.apiserver.tokensources import Sources
from k3s.apiserver.tokenuses import TokenUses
from k3s.apiserver.virtual import Reviews
from k3s.base import metrics as measures
from k3s.base.clock import Clock, local_zone
from k3s.base.entropy import Entropy
from k3s.base.message import Answer, Request, Response
from k3s.base.story import Story
from k3s.client.client import Client
from k3s.client.local import LocalTransport
from k3s.client.recorder import Recorder
from k3s.client.tls import Credentials as ClientCredentials
from k3s.client.transport import Transport
from k3s.cluster import tokens
from k3s.cluster.certs import (
    CLIENT_CA,
    REQUEST_HEADER_CA,
    SERVER_CA,
    SERVICE_KEY,
    Certificates,
    authority_names,
    client_context,
    serving_names,
)
from k3s.cluster.passwords import NodePasswords
from k3s.cluster.supervisor import Supervisor as JoinRoutes
from k3s.cluster.tokens import Secrets
from k3s.controllers.informers import Informers
from k3s.controllers.runtime import QueueMetrics
from k3s.controllers.service import Controllers
from k3s.controllers.table import Settings as ControllerSettings
from k3s.controllers.table import controllers
from k3s.run.atrest import AtRest
from k3s.run.config import ConfigError
from k3s.run.roles import ControlPlaneRole
from k3s.run.serverconfig import ServerConfig
from k3s.run.supervisor import Service, Supervisor
from k3s.scheduler.service import NAME as SCHEDULER
from k3s.scheduler.service import Scheduler
from k3s.store.compaction import Compactor
from k3s.store.interface import Store

log = logging.getLogger(__name__)

_MANAGER = identity.authenticated("system:kube-controller-manager")
_SCHEDULER = identity.authenticated("system:kube-scheduler")
_NODE = builtin("v1", "Node")
_EVENT = builtin("v1", "Event")
DNS_SERVICE = "kube-dns"

#: Wraps the transport of a component of this process: the simulation puts faults there.
Through = Callable[[identity.User, Transport], Transport]


class ControlPlane:
    """The parts of the server process. Certificates and secrets exist already (`run.prepare`).

    An empty bind address means that nobody listens: only clients of this process are served.
    """

    def __init__(
        self,
        config: ServerConfig,
        store: Store,
        certificates: Certificates,
        secrets: Secrets,
        clock: Clock,
        entropy: Entropy,
        through: Through = lambda user, transport: transport,
    ) -> None:
        self.config = config
        self._through = through
        self.certificates = certificates
        self.clock = clock
        self.entropy = entropy
        self.story = Story()
        self._at_rest = AtRest(
            store,
            config.server_dir / "cred",
            clock,
            entropy,
            provider=config.encryption,
            file=config.encryption_file,
            follows=config.encryption_follows,
        )
        self.store = self._at_rest.store
        self.supervisor: Supervisor | None = None
        registry = REGISTRY.copy()
        cache = Cache(computed(registry), self.config.cache_ring)
        self._metrics = measures.Registry()
        self._token_uses = TokenUses(self._metrics, clock)
        self.authenticator = self._authenticator(cache, secrets)
        self.authorizer, self._authorization = authorizer(
            cache, config.authorization, self.clock, self._metrics, config.host_name
        )
        self.api = self._api_server(registry, cache)
        self._at_rest.measure(self.api.metrics, name_of(config.host_name))
        self._itself = Client(LocalTransport(self.api.itself()))
        self._passwords = NodePasswords(self._itself, entropy)
        self._recorder = Recorder(self.client(_SCHEDULER), SCHEDULER, clock, entropy)

    # -- making

    def _authenticator(self, cache: Cache, secrets: Secrets) -> Authenticator:
        config = self.config
        static = parse_token_file(Path(config.token_auth_file).read_text()) if config.token_auth_file else {}
        said, paths = config.tokens.tokens.anonymous, config.tokens.tokens.anonymous_paths
        credentials = Credentials(
            authorities=authority_names(self.certificates.path(CLIENT_CA)),
            proxies=authority_names(self.certificates.path(REQUEST_HEADER_CA)),
            static=static,
            passwords=secrets.passwords(),
            anonymous=config.anonymous_auth if said is None else said and not paths,
            bootstrap=config.bootstrap_tokens,
            public=NAMED_PATHS if said is None else paths,
        )
        made = config.account_tokens.settings(config.cluster_domain, config.api_audiences)
        try:
            signer, keys = accounttokens.load(config.account_tokens, self.certificates.path(SERVICE_KEY))
        except AccountTokenError as error:
            raise ConfigError(f"Cannot sign tokens of service accounts: {error}") from error
        self._issuer = Issuer(cache, signer, made, self.clock, self.entropy, keys)
        verifier = Verifier(cache, keys, made, self.clock, self._token_uses)
        self._sources = Sources(config.tokens, self.clock)
        return Authenticator(credentials, cache, self.clock, verifier, self._sources.all())

    def _api_server(self, registry: Registry, cache: Cache) -> ApiServer:
        config = self.config
        kubelet_tls = client_context(
            self.certificates.read(SERVER_CA),
            self.certificates.path("client-kube-apiserver"),
            self.certificates.path("client-kube-apiserver.key"),
        )
        nodes = Nodes(cache, kubelet_tls)
        backends = (
            {} if "metrics-server" in config.disabled else {metrics.SERVICE: Metrics(cache, nodes.fetch, self.clock)}
        )
        return ApiServer(
            self.store,
            ApiServerConfig(
                addresses=((config.bind_address, config.port),) if config.bind_address else (),
                tls=self.certificates.server_context(config.tls),
                service_cidrs=(config.service_cidr,),
                node_ports=config.node_ports,
                advertise=(config.advertise_address, config.advertise_port),
                version=version_document(),
                request_s=config.request_s,
                reading_at_once=config.reading_at_once,
                writing_at_once=config.writing_at_once,
                watch_s=config.watch_s,
                origins=config.origins,
                hsts=config.hsts,
                linger_s=config.linger_s,
                turns_away=config.turns_away,
                goaway_chance=config.goaway_chance,
                trust=trust(
                    self.certificates.read(CLIENT_CA).decode(),
                    self.certificates.read(REQUEST_HEADER_CA).decode(),
                    sorted(self.authenticator.credentials.proxy_names),
                ),
            ),
            self.authenticator,
            self.authorizer,
            admission.chain(
                cache, self.authorizer, self.clock, self.entropy, registry, cache.convert, config.admission
            ),
            self.clock,
            self.entropy,
            registry=registry,
            cache=cache,
            metrics=self._metrics,
            issuer=self._issuer,
            nodes=nodes,
            reviews=Reviews(self.authenticator, self.authorizer, self.clock),
            checks=self._checks(),
            debug=self._debug(),
            routes=self._routes(),
            auditor=auditor(config.audit, self.clock, self.entropy) if config.audit is not None else None,
            others=Others(
                ClientCredentials(
                    cert_file=str(self.certificates.path("client-auth-proxy")),
                    key_file=str(self.certificates.path("client-auth-proxy.key")),
                ),
                backends,
            ),
        )

    def client(self, user: identity.User) -> Client:
        """A client in this process, with the rights of `user`."""
        return Client(self._through(user, LocalTransport(self.api.handler(user))))

    def _client_of_account(self, account: str) -> Client:
        if not account:
            return self.client(_MANAGER)
        name = identity.service_account_name("kube-system", account)
        groups = identity.service_account_groups("kube-system")
        return self.client(identity.User(name, groups))

    # -- seen from outside

    def _checks(self) -> Mapping[str, Check]:
        services = {name: (lambda name=name: self._check(name)) for name in self._names() if name != "apiserver"}
        return {**self._at_rest.checks(), **services}

    def _check(self, name: str) -> str | None:
        state = self.supervisor.states.get(name) if self.supervisor else None
        if state is None:
            return "not started"
        return None if state.phase == "ready" else f"{state.phase} {state.error}".strip()

    def _debug(self) -> Mapping[str, Callable[[Mapping[str, str]], bytes]]:
        def services(query: Mapping[str, str]) -> bytes:
            return encode(self.supervisor.describe() if self.supervisor else [])

        def story(query: Mapping[str, str]) -> bytes:
            lines = self.story.lines(query.get("key"), query.get("component"))
            return encode([line._asdict() for line in lines])

        def tasks(query: Mapping[str, str]) -> bytes:
            return encode(sorted(task.get_name() for task in asyncio.all_tasks()))

        return {"services": services, "story": story, "tasks": tasks}

    def _routes(self) -> Mapping[str, Callable[[Request, Target], Awaitable[Answer]]]:
        routes = JoinRoutes(
            self.certificates,
            self.clock,
            config=self.config.for_agents,
            servers=lambda: [f"{self.config.advertise_address}:{self.config.port}"],
            is_ready=lambda: self._check("apiserver") is None,
            check_password=self._check_password,
            reserved=frozenset(serving_names(self.config.cluster_domain, self.config.service_ip, (), ())),
            encryption=self._at_rest.own,
            rotate=self._rotate_token,
        )

        async def answer(request: Request, target: Target) -> Answer:
            try:
                user = self.authenticator.supervisor(request.headers, request.peer)
            except Pending as pending:
                await pending.work
                user = self.authenticator.supervisor(request.headers, request.peer)
            found = await routes.handle(request.method, target.path, request.headers, user, request.body)
            return Response(found.status, found.body, found.content_type)

        return {"/cacerts": answer, "/ping": answer, "/v1-k3s/": answer}

    def _rotate_token(self, new: str) -> None:
        """Exchanges the cluster's token; the former one is not good any more. Raises BadToken, OSError."""
        ca = self.certificates.read(SERVER_CA)
        self.authenticator.passwords = tokens.rotate(self.config.server_dir, ca, self.entropy, new).passwords()

    async def _check_password(self, node: str, password: str) -> None:
        await self._passwords.ensure(node, password)

    # -- services

    def _names(self) -> list[str]:
        names = ["store", "apiserver", "packaged", "informers"]
        names += ["controllers"] if self.config.controllers else []
        names += ["scheduler"] if self.config.scheduler else []
        names += ["authorization"] if self._authorization is not None else []
        names += ["role"] if self.config.node_name else []
        names += ["issuers"] if self.config.tokens.issuers_file else []
        return [*names, "certificates", "compaction", "expiry", "presence", "tokenuses"]

    def services(self) -> list[Service]:
        """The services in the order of starting."""
        runs = {
            "store": Service("store", self._run_store),
            "apiserver": Service("apiserver", self.api.run, ("store",), stop_within_s=15 + self.config.linger_s),
            "packaged": Service("packaged", self._run_packaged, ("apiserver",)),
            "informers": Service("informers", self._run_informers, ("apiserver",)),
            "controllers": Service("controllers", self._run_controllers, ("informers",)),
            "scheduler": Service("scheduler", self._run_scheduler, ("informers",)),
            "role": Service("role", self._run_role, ("informers",)),
            "certificates": Service("certificates", self.certificates.renew, ("apiserver",)),
            "compaction": Service("compaction", self._run_compaction, ("store",)),
            "expiry": Service("expiry", self._run_expiry, ("apiserver",)),
            "presence": Service("presence", self._run_presence, ("apiserver",)),
            "issuers": Service("issuers", self._run_issuers),
            "tokenuses": Service("tokenuses", self._run_token_uses, ("apiserver",)),
        }
        if self._authorization is not None:
            runs["authorization"] = Service("authorization", self._authorization, ("store",))
        return [runs[name] for name in self._names()]

    async def _run_store(self, ready: Callable[[], None]) -> None:
        try:
            await self._at_rest.open()
            ready()
            await asyncio.Event().wait()
        finally:
            await self._at_rest.close()

    async def _run_compaction(self, ready: Callable[[], None]) -> None:
        if not self.config.compaction_s:
            ready()
            await asyncio.Event().wait()
        await Compactor(self.store, every_s=self.config.compaction_s, keep=self.config.history_kept).run(ready)

    async def _run_expiry(self, ready: Callable[[], None]) -> None:
        await Expiry(self.api.cache, self.api.crud, _EVENT, self.config.event_ttl_s, self.clock).run(ready)

    async def _run_presence(self, ready: Callable[[], None]) -> None:
        await Presence(self._itself, self.config.host_name, self.clock, self.entropy).run(ready)

    async def _run_issuers(self, ready: Callable[[], None]) -> None:
        from k3s.run.issuersfile import IssuersFile

        def use() -> None:
            self.authenticator.use(self._sources.all())

        file = IssuersFile(self.config.tokens, self._sources, use, self.clock)
        file.measure(self._metrics, name_of(self.config.host_name))
        await file.run(ready)

    async def _run_token_uses(self, ready: Callable[[], None]) -> None:
        await self._token_uses.run(self._itself, self.api.cache, ready)

    async def _run_packaged(self, ready: Callable[[], None]) -> None:
        """Makes the packaged objects of k3s that are missing; stays, because no service may end."""
        for wanted in packaged(self.config):
            kind = builtin(wanted["apiVersion"], wanted["kind"])
            if self.api.reader.get(kind, objects.namespace(wanted), objects.name(wanted)) is None:
                await self._itself.create(kind, wanted)
        ready()
        await asyncio.Event().wait()

    async def _run_informers(self, ready: Callable[[], None]) -> None:
        # Whoever reads informers asks for them here, so that none of the first objects is missed.
        self.informers = Informers(self.client(_MANAGER), self.clock, self.entropy)
        self._controllers = self._make_controllers() if self.config.controllers else None
        self._scheduler = self._make_scheduler() if self.config.scheduler else None
        await self.informers.run(ready)

    async def _run_role(self, ready: Callable[[], None]) -> None:
        await ControlPlaneRole(self._itself, self.informers.of(_NODE), self.config.node_name).run(ready)

    def _make_controllers(self) -> Controllers:
        config = self.config
        settings = ControllerSettings(
            root_ca=self.certificates.read(SERVER_CA).decode(),
            api_addresses=(config.advertise_address,),
            api_port=config.advertise_port,
            cluster_cidrs=(config.cluster_cidr,),
            most_ended_pods=config.most_ended_pods,
            unused_tokens_s=config.unused_tokens_s,
            sign=self._issuer.legacy,
            local_zone=local_zone,
        )
        return Controllers(
            controllers(settings, self.api.registry),
            self.informers,
            self._client_of_account,
            self.api.registry,
            self.clock,
            self.entropy,
            self.story,
            QueueMetrics(self.api.metrics),
        )

    def _make_scheduler(self) -> Scheduler:
        return Scheduler(
            self.client(_SCHEDULER), self.informers.of, self.clock, self._recorder, self.story, self.api.metrics
        )

    async def _run_controllers(self, ready: Callable[[], None]) -> None:
        assert self._controllers is not None
        await self._controllers.run(ready)

    async def _run_scheduler(self, ready: Callable[[], None]) -> None:
        assert self._scheduler is not None
        async with asyncio.TaskGroup() as group:
            group.create_task(self._recorder.run())
            group.create_task(self._scheduler.run(ready))


def packaged(config: ServerConfig) -> list[Object]:
    """What k3s brings along, but for what is disabled."""
    found = [] if "coredns" in config.disabled else [dns_service(config)]
    return found if "metrics-server" in config.disabled else [*found, metrics.api_service(), metrics.reader_role()]


def dns_service(config: ServerConfig) -> Object:
    """The Service kube-dns: it has no endpoints, because the agent of every node answers at its address itself."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": DNS_SERVICE,
            "namespace": "kube-system",
            "labels": {
                "k8s-app": DNS_SERVICE,
                "kubernetes.io/cluster-service": "true",
                "kubernetes.io/name": "CoreDNS",
            },
        },
        "spec": {
            "clusterIP": config.cluster_dns,
            "clusterIPs": [config.cluster_dns],
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
            ],
            "type": "ClusterIP",
        },
    }


def version_document() -> dict[str, str]:
    """What /version answers."""
    import platform
    import sys

    major, minor = VERSION.removeprefix("v").split(".")[:2]
    return {
        "major": major,
        "minor": minor,
        "emulationMajor": major,
        "emulationMinor": minor,
        "minCompatibilityMajor": major,
        "minCompatibilityMinor": str(int(minor) - 1),
        "gitVersion": VERSION,
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "",
        "goVersion": f"python{'.'.join(map(str, sys.version_info[:3]))}",
        "compiler": platform.python_implementation().lower(),
        "platform": f"linux/{({'x86_64': 'amd64', 'aarch64': 'arm64'}).get(platform.machine(), platform.machine())}",
    }
