"""Callers that sign without a pause while something is killed, and what must be true of every one of their requests."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

from tests.support.partner import CLEAN, Answer, Partner, sad_hash
from tests.support.signatures import ECDSA_SHA256, verify
from tests.support.waiting import until
from tests.support.world import MIDORI, P256, PINS, World

Sender = Callable[[Partner], Awaitable[Answer]]

_HASHES = 60
_PATIENCE_S = 45.0


@dataclass
class Asked:
    """One signature that a partner wants, and every answer it got on the way."""

    sad: str
    digest: bytes
    answers: list[Answer] = field(default_factory=list)

    @property
    def value(self) -> bytes:
        return self.answers[-1].values[0]


class Balancer:
    """Sends to the first replica, and to the next once that one leaves, as the balancer before real replicas does.

    A request that was taken and not answered is lost: httpx raises, and so fails the test.
    """

    def __init__(self, partners: Sequence[Partner]) -> None:
        self._partners = list(partners)

    async def send(self, send: Sender) -> Answer:
        while True:
            partner = self._partners[0]
            try:
                answer = await send(partner)
            except httpx.ConnectError:
                if len(self._partners) == 1:
                    raise
                self._leave(partner)
                continue
            if answer.leaving:
                self._leave(partner)
            return answer

    def _leave(self, partner: Partner) -> None:
        if partner is self._partners[0] and len(self._partners) > 1:
            self._partners.pop(0)


class Load:
    """Each caller asks for one hash after another, and for the same again until it has a value."""

    def __init__(self, world: World, partners: Sequence[Partner]) -> None:
        self._world = world
        self._balancer = Balancer(partners)
        self._stopping = asyncio.Event()
        self._authorizing = asyncio.Lock()
        self.asked: list[Asked] = []
        self.authorizing: list[Answer] = []
        """Answers to authorizations; a repeated one is another authorization."""

    @classmethod
    @asynccontextmanager
    async def running(cls, world: World, *partners: Partner, callers: int = 4) -> AsyncIterator["Load"]:
        """Leaving waits until every request in hand has its value. Several partners are replicas to choose from."""
        load = cls(world, partners or (world.acme,))
        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(load._call())
            try:
                yield load
            finally:
                load._stopping.set()

    async def until(self, more: int) -> None:
        """Wait until so many more values have come."""
        wanted = self.signed + more

        async def came() -> bool:
            return self.signed >= wanted

        await until(came, within_s=_PATIENCE_S)

    @property
    def signed(self) -> int:
        return sum(bool(asked.answers) and asked.answers[-1].status == 200 for asked in self.asked)

    @property
    def refusals(self) -> list[tuple[int, str, str]]:
        """Everything but values and SADs."""
        answers = [answer for asked in self.asked for answer in asked.answers] + self.authorizing
        return [answer.refusal for answer in answers if answer.status != 200]

    async def check(self) -> None:
        """Nothing lost, nothing doubled: one good value for each, the recorded one, and the same when asked again."""
        world = self._world
        certificate = await world.acme.certificate(P256)
        for asked in self.asked:
            verify(certificate, ECDSA_SHA256, [asked.digest], [asked.value])
        wanted = {(sad_hash(one.sad), one.digest): [(one.value,)] for one in self.asked}
        assert await self._recorded() == wanted
        for asked in self.asked[:: max(1, len(self.asked) // 40)]:
            assert (await world.acme.sign(P256, asked.sad, asked.digest)).values == (asked.value,)
        assert await self._recorded() == wanted
        assert await self._spent() == len(self.asked)

    async def _recorded(self) -> dict[tuple[bytes, bytes], list[tuple[bytes, ...]]]:
        """By SAD and digest: the values of every operation the SVG ever began for it."""
        rows = await self._world.fetch(
            """
            select a.sad_hash, h.digest, o.signature_values
            from sam.authorizations a
            join sam.authorized_hashes h using (authorization_id)
            join svg.spent_occurrences s using (authorization_id, occurrence)
            join svg.operations o on o.operation_id = s.operation_id
            where a.sad_hash = any($1)
            """,
            self._sad_hashes,
        )
        recorded: dict[tuple[bytes, bytes], list[tuple[bytes, ...]]] = {}
        for row in rows:
            recorded.setdefault((row["sad_hash"], row["digest"]), []).append(tuple(row["signature_values"] or ()))
        return recorded

    async def _spent(self) -> int:
        rows = await self._world.fetch(
            "select coalesce(sum(used), 0) from sam.authorizations where sad_hash = any($1)", self._sad_hashes
        )
        return int(rows[0][0])

    @property
    def _sad_hashes(self) -> list[bytes]:
        return list({sad_hash(asked.sad) for asked in self.asked})

    async def _call(self) -> None:
        while not self._stopping.is_set():
            digests = [secrets.token_bytes(32) for _ in range(_HASHES)]
            sad = await self._authorize(digests)
            for digest in digests:
                if self._stopping.is_set():
                    return
                await self._sign(sad, digest)

    async def _authorize(self, digests: list[bytes]) -> str:
        async with self._authorizing, asyncio.timeout(_PATIENCE_S):
            while True:
                answer = await self._balancer.send(lambda partner: partner.ask_sad(P256, digests, pin=PINS[MIDORI]))
                self.authorizing.append(answer)
                if answer.status == 200:
                    sad: str = answer.body["SAD"]
                    return sad
                await _pause(answer)

    async def _sign(self, sad: str, digest: bytes) -> None:
        asked = Asked(sad, digest)
        self.asked.append(asked)
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                asked.answers.append(await self._balancer.send(lambda partner: partner.sign(P256, sad, digest)))
                if asked.answers[-1].status == 200:
                    return
                await _pause(asked.answers[-1])


async def _pause(answer: Answer) -> None:
    assert answer.refusal[:2] in CLEAN, answer
    await asyncio.sleep(0.2)
