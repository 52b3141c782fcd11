"""The TSA connector whole, but for its database and its bus: real clients, rules and memory, TSAs of one's choosing."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from services.tsa_connector.asking import Asking, Client
from services.tsa_connector.client import Clients, StatusClient
from services.tsa_connector.frames import (
    LENGTHS,
    Link,
    Reading,
    lengths,
    loads,
    reading_in,
    text,
)
from services.tsa_connector.handlers import Handlers
from services.tsa_connector.memory import Memories
from services.tsa_connector.metrics import TSAMetrics
from services.tsa_connector.obtaining import Obtaining
from services.tsa_connector.quotas import Quotas
from services.tsa_connector.reader import Reader, token_head
from services.tsa_connector.reading import ReaderPool
from services.tsa_connector.recording import Recorder
from services.tsa_connector.request import TimestampRequest
from services.tsa_connector.revocation import Revocation
from services.tsa_connector.settings import Readers
from services.tsa_connector.status import Sources, Statuses
from services.tsa_connector.store import Entry, Spent
from services.tsa_connector.watching import Watch
from shared.errors import Code, RakkanError
from shared.registry import Registry, TimeStampingAuthority
from shared.registry.model import Quota

CLASS = "standard"


def entry(url: str = "http://127.0.0.1:1/", *, anchor: str, **more: Any) -> dict[str, Any]:
    """A TSA of the class `standard`, as it stands in the registry."""
    return {
        "label": "A TSA",
        "url": url,
        "anchors": [anchor],
        "check_revocation": False,
        "classes": [{"name": CLASS, "since": "2020-01-01"}],
    } | more


def registry_of(tsas: Mapping[str, Any], **more: Any) -> Registry:
    default = {"timestamps": {"assurance_class": CLASS}}
    return Registry.model_validate({"version": 1, "time_stamping_authorities": dict(tsas), "defaults": default} | more)


@dataclass
class FakeStore:
    """Quotas in memory; for a window of any length what was spent counts for ever."""

    spent: dict[str, int] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    is_away: bool = False

    async def spend(self, authority: str, quotas: Sequence[Quota], *, wanted: int) -> Spent:
        used = self.spent.get(authority, 0)
        granted = max(0, min([wanted, *(quota.requests - used for quota in quotas)]))
        self.spent[authority] = used + granted
        return Spent(granted, second=1)

    async def left(self, quotas: Mapping[str, Sequence[Quota]]) -> dict[str, tuple[int, ...]]:
        return {
            name: tuple(quota.requests - self.spent.get(name, 0) for quota in of_it)
            for name, of_it in quotas.items()
            if of_it
        }

    async def record(self, entries: Sequence[Entry]) -> None:
        if self.is_away:
            raise RakkanError(Code.UNAVAILABLE, "the database: OSError")
        self.entries += entries
        for entry_ in entries:
            for name, _ in entry_.given_back:
                self.spent[name] -= 1

    async def forget_old(self) -> None:
        """Nothing is old here."""

    @property
    def events(self) -> list[tuple[str, Mapping[str, str]]]:
        return [(leaf.event_type, leaf.subject) for one in self.entries for leaf in one.leaves]


class DirectReaders:
    """The reader's own code, called and not spoken with: for tests that are about something else."""

    restarts = 0

    def __init__(self, tsas: Mapping[str, TimeStampingAuthority]) -> None:
        self._reader = Reader()
        self.use(tsas)

    def use(self, tsas: Mapping[str, TimeStampingAuthority]) -> None:
        self._reader.answer({"op": "trust", "tsas": {n: tsa.model_dump(mode="json") for n, tsa in tsas.items()}}, b"")

    async def read_token(
        self,
        body: bytes,
        *,
        tsa: str,
        request: TimestampRequest,
        asked_at: datetime,
        now: datetime,
        with_certificates: bool,
    ) -> Reading:
        head = token_head(tsa, request, asked_at=asked_at, now=now, with_certificates=with_certificates)
        return reading_in(*self._ask(head, body))

    async def read_status(self, kind: str, body: bytes, link: Link, *, now: datetime) -> Revocation:
        names = {"certificate": text(link.certificate), "issuer": text(link.issuer)}
        told, _ = self._ask({"op": kind, "now": now.isoformat(), **names}, body)
        return Revocation(told["is_revoked"], datetime.fromisoformat(told["until"]))

    def _ask(self, head: Mapping[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        frame = BytesIO(self._reader.answer(head, body) or b"")
        head_bytes, blob_bytes = lengths(frame.read(LENGTHS.size))
        told, blob = loads(frame.read(head_bytes)), frame.read(blob_bytes)
        if "code" in told:
            raise RakkanError(Code(told["code"]), told["detail"])
        return told, blob


@dataclass(frozen=True)
class NoSecrets:
    folder: Path = Path("/nonexistent")

    def secret(self, name: str) -> str:
        return self.secret_file(name).read_text().strip()

    def secret_file(self, name: str) -> Path:
        return self.folder / name


@dataclass
class TSARoom:
    registry: Registry
    handlers: Handlers
    obtaining: Obtaining
    store: FakeStore
    memories: Memories
    watch: Watch
    metrics: CollectorRegistry

    async def take_up(self, registry: Registry) -> None:
        await self.watch.take_up(registry)
        self.registry = registry


@asynccontextmanager
async def tsa_room(
    registry: Registry,
    *,
    client: Callable[[str], Client] | None = None,
    sources: Sources | None = None,
    readers: Readers | None = None,
    secrets_folder: Path = Path("/nonexistent"),
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> AsyncIterator[TSARoom]:
    """With `readers` real processes read; with `client` nobody is called over the network."""
    tsas, figures, store = registry.time_stamping_authorities, CollectorRegistry(), FakeStore()
    memories, recorder = Memories(), Recorder(store)
    async with AsyncExitStack() as stack:
        clients = Clients(tsas if client is None else {}, NoSecrets(secrets_folder))
        stack.push_async_callback(clients.close)
        web = StatusClient()
        reads: Any = DirectReaders(tsas)
        if readers is not None:
            reads = await stack.enter_async_context(ReaderPool(readers, tsas).running())
        metrics = TSAMetrics(figures)
        statuses = Statuses(sources=sources or web, readers=reads, now=now)
        stack.push_async_callback(statuses.close)
        asking = Asking(
            client=client or clients.of,
            readers=reads,
            quotas=Quotas(store),
            statuses=statuses,
            memories=memories,
            metrics=metrics,
            now=now,
        )
        obtaining = Obtaining(registry=lambda: room.registry, asking=asking, surplus=recorder.surplus, now=now)
        stack.push_async_callback(obtaining.close)
        handlers = Handlers(
            instance="test",
            registry=lambda: room.registry,
            obtaining=obtaining,
            recorder=recorder,
            store=store,
            memories=memories,
            now=now,
        )
        watch = Watch(
            registry=registry,
            clients=clients,
            readers=reads,
            store=store,
            memories=memories,
            metrics=metrics,
            now=now,
        )
        room = TSARoom(registry, handlers, obtaining, store, memories, watch, figures)
        yield room
