"""The API server: its parts put together, started and stopped."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from k3s.api.kinds import REGISTRY, Registry
from k3s.apiserver import bootstrap
from k3s.apiserver.admission.webhookclient import WebhookClient
from k3s.apiserver.admits import Admits
from k3s.apiserver.aggregation.aggregator import ALONE, Aggregator, Others
from k3s.apiserver.authn import Authenticates
from k3s.apiserver.authz import Authorizes
from k3s.apiserver.cache import Cache
from k3s.apiserver.conversion import Conversions, computed
from k3s.apiserver.crud import Crud
from k3s.apiserver.datastore import Datastore
from k3s.apiserver.definitions import Definitions
from k3s.apiserver.fairness import Fairness
from k3s.apiserver.flows import Flows
from k3s.apiserver.front import Front
from k3s.apiserver.hub import Hub
from k3s.apiserver.identity import APISERVER, MASTERS, User, authenticated
from k3s.apiserver.limits import Limits
from k3s.apiserver.meters import Meters
from k3s.apiserver.pipeline import Pipeline, Route
from k3s.apiserver.plain import Check, Debug, Documents, Plain
from k3s.apiserver.reads import WATCH_S, Reads
from k3s.apiserver.render import Renderer
from k3s.apiserver.request import Target
from k3s.apiserver.seats import Seating
from k3s.apiserver.strategies import Strategies
from k3s.apiserver.subresources import table
from k3s.apiserver.subresources.connect import NodeDialer
from k3s.apiserver.subresources.token import Issuer
from k3s.apiserver.writes import Answers, Writes
from k3s.base import metrics as measures
from k3s.base.clock import Clock
from k3s.base.compress import Compression
from k3s.base.entropy import Entropy
from k3s.base.http import HttpServer
from k3s.client import transport
from k3s.client.transport import WatchEvent
from k3s.store.interface import Store

if TYPE_CHECKING:
    from k3s.apiserver.audit.auditor import Auditor


@dataclass(frozen=True, slots=True)
class ApiServerConfig:
    """What an API server needs to know. `addresses` are (host, port); port 0 takes a free one."""

    addresses: tuple[tuple[str, int], ...] = (("127.0.0.1", 6443),)
    tls: ssl.SSLContext | None = None
    service_cidrs: tuple[str, ...] = ("10.43.0.0/16",)
    node_ports: tuple[int, int] = (30000, 32767)
    #: The address under which the kubernetes Service reaches this server, and its port.
    advertise: tuple[str, int] = ("127.0.0.1", 6443)
    version: Mapping[str, str] = field(
        default_factory=lambda: {"major": "1", "minor": "36", "gitVersion": "v1.36.2+k3s1"}
    )
    #: What other API servers have to know to believe this one: see `bootstrap.trust`; empty for nothing.
    trust: Mapping[str, str] = field(default_factory=dict)
    stop_within_s: float = 5.0
    #: How long a request may take that is not meant to last, and how many may be under way (0: any number).
    request_s: float = 60.0
    reading_at_once: int = 400
    writing_at_once: int = 200
    #: How long a watch stays at least when its client does not say.
    watch_s: float = WATCH_S
    #: Origins of pages that may use the API (expressions), and what browsers are told of TLS.
    origins: tuple[str, ...] = ()
    hsts: tuple[str, ...] = ()
    #: How long a stopping server goes on as before, but for /readyz; whether it then sends away who comes, with a word.
    linger_s: float = 0.0
    turns_away: bool = False
    goaway_chance: float = 0.0


class Local:
    """The pipeline for one identity of this process: what `client.local.LocalTransport` talks to."""

    def __init__(self, pipeline: Pipeline, user: User) -> None:
        self._pipeline = pipeline
        self._user = user

    async def handle(self, request: transport.Request) -> transport.Response:
        """Answers a request; raises ApiError."""
        return await self._pipeline.local(self._user, request)

    def watch(self, request: transport.Request) -> AsyncIterator[WatchEvent]:
        """The events of a watch; raises ApiError."""
        return self._pipeline.local_watch(self._user, request)


class ApiServer:
    """Serves the API from a store. Everything it depends on is handed in.

    `cache` is given by whoever needs it before the server is there: authentication, authorization, admission read it.
    """

    _stopping = False
    _documents: Documents | None = None

    def __init__(
        self,
        store: Store,
        config: ApiServerConfig,
        authenticator: Authenticates,
        authorizer: Authorizes,
        admission: Admits,
        clock: Clock,
        entropy: Entropy,
        metrics: measures.Registry | None = None,
        *,
        registry: Registry | None = None,
        cache: Cache | None = None,
        issuer: Issuer | None = None,
        nodes: NodeDialer | None = None,
        reviews: Answers | None = None,
        checks: Mapping[str, Check] | None = None,
        debug: Mapping[str, Debug] | None = None,
        routes: Mapping[str, Route] | None = None,
        auditor: Auditor | None = None,
        others: Others = ALONE,
    ) -> None:
        store = self._store = Datastore(store)
        self._config = config
        self.registry = registry or REGISTRY.copy()
        self.cache = cache or Cache(computed(self.registry))
        self.metrics = metrics or measures.Registry()
        conversions = Conversions(self.registry, self.cache.convert, WebhookClient(self.cache), entropy)
        self._hub = Hub(self.cache, store, conversions)
        self.strategies = Strategies(self.cache, entropy, config.service_cidrs, config.node_ports)
        converted = self.registry.storage_kind, conversions
        self.crud = Crud(store, self.cache, self.strategies.of, admission, entropy, *converted, store.is_stale)
        admission.attach(self.crud.commit)
        self._definitions = Definitions(self.registry, self.crud, clock, self.strategies.forget, self._hub.end)
        reads = Reads(self.cache, store, self._hub, conversions, entropy, config.watch_s)
        writes = Writes(self.crud, self.registry, clock, reviews)
        writes.serve(table(reads, writes, admission, issuer, nodes))
        self._aggregator = Aggregator(self.registry, self.cache, self.crud, clock, others)
        self._checks = {"ping": _well, "log": _well, "etcd": self._store_check, **(checks or {})}
        seating = Seating(config.reading_at_once + config.writing_at_once)
        fairness = Fairness(seating, self.metrics, self._stored, clock, config.request_s)
        self._meters = Meters(self.metrics, self.registry, self.cache, self._hub, fairness.measure)
        plain = self._plain({**fairness.dumps(), **(debug or {})}, issuer)
        self.pipeline = Pipeline(
            self.registry,
            authenticator,
            authorizer,
            reads,
            writes,
            Renderer(self.cache, clock),
            self._hub,
            plain,
            routes or {},
            self._meters.seen,
            self._meters.under_way,
            clock.monotonic,
            Limits(config.request_s),
            Flows(self.cache, seating, clock.monotonic),
            fairness,
            self._aggregator,
            auditor,
        )
        self._auditor = auditor
        self._front = Front(self.pipeline.start, entropy, config.origins, config.hsts, config.goaway_chance)
        # Most servers have nothing to say before the answer.
        asked = config.origins or config.hsts or config.turns_away or config.goaway_chance
        app = self._front if asked else self.pipeline.start
        self._http = HttpServer(app, clock, entropy, Compression())
        self.ports: list[int] = []  # where it listens, known once it does

    def _plain(self, debug: Mapping[str, Debug], issuer: Issuer | None) -> Plain:
        """What is no object. A server that stops is alive, but not ready any more."""
        live = frozenset(self._checks)
        self._checks["shutdown"] = lambda: "process is shutting down" if self._stopping else None
        host, port = self._config.advertise
        at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return Plain(
            self._config.version,
            self._checks,
            live,
            self._meters.text,
            self._discovery,
            debug,
            issuer.published(f"https://{at}/openid/v1/jwks") if issuer is not None else {},
        )

    @property
    def reader(self) -> Cache:
        """Read access to the state (see `cache.Reader`)."""
        return self.cache

    async def load(self) -> None:
        """Opens the store's state and makes what has to exist; from then on local clients are served."""
        if self._auditor is not None:
            self._auditor.open(self.metrics)
        await self.cache.load(self._store)
        self._definitions.start()
        address, port = self._config.advertise
        await bootstrap.ensure(self, address, port, self._config.service_cidrs[0], self._config.trust)
        await self._aggregator.start(self.itself())

    async def start(self) -> None:
        """Loads the state and listens. The store has to be open. Raises OSError, Unavailable."""
        await self.load()
        for host, port in self._config.addresses:
            self.ports.append(await self._http.listen(host, port, self._config.tls))

    async def stop(self) -> None:
        """Ends watches, finishes what is being answered, closes; from now on /readyz says no."""
        self._stopping = True
        await asyncio.sleep(self._config.linger_s)
        self._front.leaving = self._config.turns_away
        self._hub.close()
        await self._aggregator.stop()
        await self._definitions.stop()
        await self._http.stop(self._config.stop_within_s, listening=self._config.turns_away)
        if self._auditor is not None:
            await self._auditor.close()

    async def run(self, ready: Callable[[], None]) -> None:
        """Serves until cancelled."""
        await self.start()
        try:
            ready()
            await asyncio.Event().wait()
        finally:
            await self.stop()

    def handler(self, user: User) -> Local:
        """The pipeline for a component of this process."""
        return Local(self.pipeline, user)

    def itself(self) -> Local:
        """The pipeline for the API server's own work."""
        return self.handler(authenticated(APISERVER, MASTERS))

    def _discovery(self) -> Documents:
        if self._documents is None:
            from k3s.apiserver.documents import documents

            host, port = self._config.advertise
            at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            self._documents = documents(self.registry, at, self._aggregator)
        return self._documents

    def _stored(self, target: Target) -> int:
        """How many objects there are of the kind that a request is about."""
        kind = self.registry.by_resource(target.info.group, target.info.version, target.info.resource)
        return self.cache.bucket(kind).count if kind is not None and kind.stored else 0

    def _store_check(self) -> str | None:
        problem = getattr(self._store, "problem", None)
        return str(problem()) if problem is not None and problem() else None


def _well() -> None:
    return None
