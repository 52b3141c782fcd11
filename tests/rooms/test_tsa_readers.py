"""The processes that parse what comes from TSAs: they answer, and what is too much for one ends it and nothing else."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from services.tsa_connector.frames import Reading
from services.tsa_connector.reading import ReaderPool
from services.tsa_connector.settings import Readers
from shared.errors import Code, RakkanError
from tests.support.judging import HONEST, REQUEST
from tests.support.lying_tsa import NOW, Lies, LyingTSA
from tests.support.tsa_rooms import entry, registry_of
from tests.support.tsa_statuses import crl

ANCHOR = HONEST.root.certificate.public_bytes(Encoding.PEM).decode()
TSAS = registry_of({"clock": entry(anchor=ANCHOR)}).time_stamping_authorities
TRUE = HONEST.answer(REQUEST, Lies())


@asynccontextmanager
async def readers(**settings: Any) -> AsyncIterator[ReaderPool]:
    async with ReaderPool(Readers(**{"processes": 1, **settings}), TSAS).running() as pool:
        yield pool


async def read(pool: ReaderPool, body: bytes) -> Reading:
    return await pool.read_token(
        body, tsa="clock", request=REQUEST, asked_at=NOW, now=NOW + timedelta(seconds=1), with_certificates=True
    )


async def refused(pool: ReaderPool, body: bytes) -> RakkanError:
    with pytest.raises(RakkanError) as refusal:
        await read(pool, body)
    return refusal.value


def crowded(count: int) -> bytes:
    """An answer with so many empty strings in its status: two bytes each on the way, a kilobyte each in memory."""
    rejection, texts = b"\x02\x01\x02", b"\x0c\x00" * count
    return _tagged(0x30, _tagged(0x30, rejection + _tagged(0x30, texts)))


def nested(depth: int) -> bytes:
    body = b"\x05\x00"
    for _ in range(depth):
        body = _tagged(0x30, body)
    return body


def _tagged(tag: int, content: bytes) -> bytes:
    size = len(content).to_bytes(4, "big").lstrip(b"\0") or b"\0"
    head = bytes([len(content)]) if len(content) < 128 else bytes([0x80 | len(size)]) + size
    return bytes([tag]) + head + content


async def test_a_reader_gives_the_token_as_it_came_and_the_path_once() -> None:
    async with readers() as pool:
        first, second = await read(pool, TRUE), await read(pool, TRUE)
    assert first.token in TRUE
    assert (first.time, first.serial_number, first.time_fault) == (NOW, "1", None)
    assert [link.certificate for link in first.path or ()] == [HONEST.signer.der]
    assert (second.path, second.path_id) == (None, first.path_id)


async def test_what_is_refused_is_refused_with_its_reason() -> None:
    async with readers() as pool:
        assert (await refused(pool, b"<html>")).code is Code.TSA_UNTRUSTED
        rejected = HONEST.answer(
            REQUEST, Lies(status="rejection", failures=frozenset({"unaccepted_policy"}), with_token=False)
        )
        assert (await refused(pool, rejected)).code is Code.TSA_POLICY_REFUSED


async def test_many_at_once_come_back_each_to_its_own() -> None:
    others = [LyingTSA.honest().answer(REQUEST, Lies()) for _ in range(3)]
    async with readers(processes=2) as pool:
        outcomes = await asyncio.gather(
            *(read(pool, body) for body in [TRUE, others[0]] * 20 + others), return_exceptions=True
        )
    assert [isinstance(one, Reading) for one in outcomes] == [True, False] * 20 + [False] * 3


@pytest.mark.parametrize(
    ("body", "settings"),
    [
        (crowded(400_000), {"memory_bytes": 67_108_864, "cpu_s": 30.0, "wait_s": 30.0}),
        (crowded(400_000), {"memory_bytes": 4_294_967_296, "cpu_s": 0.3, "wait_s": 30.0}),
        (crowded(400_000), {"memory_bytes": 4_294_967_296, "cpu_s": 30.0, "wait_s": 0.2}),
    ],
    ids=["memory", "processor", "clock"],
)
async def test_an_answer_beyond_the_limits_ends_its_reader_and_not_what_waits_behind(
    body: bytes, settings: dict[str, Any]
) -> None:
    async with readers(**settings) as pool:
        bad, *good = await asyncio.gather(
            read(pool, body), *(read(pool, TRUE) for _ in range(5)), return_exceptions=True
        )
        assert isinstance(bad, RakkanError)
        assert (bad.code, bad.detail) == (
            Code.TSA_UNTRUSTED,
            "an answer that could not be read within its limits",
        )
        assert all(isinstance(one, Reading) for one in good)
        assert pool.restarts == 1
        await pool.check()


@pytest.mark.parametrize("body", [nested(20_000), b"\x30\x80" * 30_000, b"\xff" * 60_000, os.urandom(60_000)])
async def test_nothing_that_fits_into_an_answer_breaks_more_than_itself(body: bytes) -> None:
    async with readers() as pool:
        assert (await refused(pool, body)).code is Code.TSA_UNTRUSTED
        assert (await read(pool, TRUE)).time == NOW


async def test_a_reader_that_is_killed_while_idle_is_replaced_and_nobody_is_blamed() -> None:
    async with readers() as pool:
        await read(pool, TRUE)
        process = pool._readers[0]._process
        assert process is not None
        process.kill()
        await process.wait()
        assert (await read(pool, TRUE)).time == NOW


async def test_another_registry_is_believed_from_the_next_answer_on() -> None:
    stranger = LyingTSA.honest().root.certificate.public_bytes(Encoding.PEM).decode()
    async with readers() as pool:
        await read(pool, TRUE)
        pool.use(registry_of({"clock": entry(anchor=stranger)}).time_stamping_authorities)
        assert "chain" in (await refused(pool, TRUE)).detail
        pool.use(TSAS)
        again = await read(pool, TRUE)
        assert again.path is not None


async def test_a_status_is_read_there_too() -> None:
    async with readers() as pool:
        (link,) = (await read(pool, TRUE)).path or ()
        status = await pool.read_status("crl", crl(HONEST.root, HONEST.signer), link, now=NOW)
        assert status.is_revoked
        with pytest.raises(RakkanError):
            await pool.read_status("ocsp", b"nonsense", link, now=NOW)


async def test_a_reader_knows_nothing_of_the_rooms_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAKKAN_DATABASE__PASSWORD_FILE", "/secret")
    async with readers() as pool:
        process = pool._readers[0]._process
        assert process is not None
        environment = await asyncio.to_thread(_environment, process.pid)
    assert "RAKKAN_" not in environment
    assert "PATH" in environment


def _environment(pid: int) -> str:
    with open(f"/proc/{pid}/environ", encoding="utf-8") as file:  # noqa: PTH123 - no file of ours
        return file.read()
