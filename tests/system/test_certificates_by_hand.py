"""A CA without an API on the real broker and database: files go out, files come in, and the SAM hears."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from deploy.local.home import CHECKOUT
from deploy.local.stack import Stack
from shared.contracts.base import Job
from shared.contracts.ca_connector import OrderCertificate
from shared.contracts.sam import AcceptCertificate, NoteCertificateStatus, RefuseOrder
from shared.errors import RakkanError
from shared.messaging.bus import Bus
from shared.messaging.outbox import Posted
from tests.support.buses import bus_of
from tests.support.by_hand import ByHand
from tests.support.ordering import new_key, request_for
from tests.support.waiting import until

BY_POST = "by-post"


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> ByHand:
    return ByHand(tmp_path_factory.mktemp("by-post"))


@pytest.fixture(scope="module")
async def room(broker: Stack, database: Stack, ca: ByHand) -> AsyncIterator[Stack]:
    assert broker is database
    await asyncio.to_thread(broker.token, "ca_connector")
    await asyncio.to_thread(broker.rooms.hold_ceremony, "ca_connector")
    await asyncio.to_thread(broker.rooms.start_tsas)
    await asyncio.to_thread(broker.rooms.write_registry)
    await asyncio.to_thread(broker.rooms.start, "ca_connector")
    try:
        await asyncio.to_thread(broker.rooms.wait_ready, "ca_connector")
        before = broker.rooms.registry.read()
        changed = {name: value for name, value in before.items() if name != "version"}
        changed["certification_authorities"] = {**changed["certification_authorities"], BY_POST: entry(ca)}
        broker.rooms.registry.write(changed)  # the room that runs takes it up
        yield broker
    finally:
        await asyncio.to_thread(broker.rooms.stop)
        await asyncio.to_thread(broker.rooms.write_registry)


def entry(ca: ByHand) -> dict[str, object]:
    return {
        "label": "Example CA by post",
        "protocol": "manual",
        "anchors": [ca.root],
        "profiles": {"signing": {"label": "Document signing", "issuance": "external"}},
        "default_profile": "signing",
    }


@asynccontextmanager
async def sam_of(stack: Stack, heard: "asyncio.Queue[Job]") -> AsyncIterator[Bus]:
    """The SAM's place on the bus."""
    bus = bus_of(stack, "sam")

    async def hear(job: Job) -> None:
        heard.put_nowait(job)

    async def reached() -> bool:
        try:
            await bus.check()
        except RakkanError:
            return False
        return True

    async with bus.connected():
        await until(reached, within_s=20)
        bus.serve(dict.fromkeys((AcceptCertificate, RefuseOrder, NoteCertificateStatus), hear))
        yield bus


async def say(stack: Stack, *words: str) -> tuple[int | None, str]:
    """At the operator's door: exit status, and all that was said."""
    argv, environment = stack.rooms.operator(list(words))
    said = await asyncio.create_subprocess_exec(
        *argv, env=environment, cwd=CHECKOUT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        **stack.rooms.account.identity(),
    )  # fmt: skip
    told, _ = await said.communicate()
    return said.returncode, told.decode()


async def test_requests_leave_as_a_file_and_certificates_come_back_as_files(room: Stack, ca: ByHand) -> None:
    folder = desk_of(room)
    heard: asyncio.Queue[Job] = asyncio.Queue()
    order_id = secrets.token_hex(8)
    order = OrderCertificate(order_id=order_id, authority=BY_POST, csr=request_for(new_key()))
    async with sam_of(room, heard) as bus:
        await bus.send_job(Posted(secrets.token_hex(8), order.TYPE, "operation", order.model_dump_json().encode()))
        bundles = iter(range(1000))
        stated: dict[str, str] = {}

        async def exported() -> bool:
            out = folder / f"bundle-{next(bundles)}.json"
            status, _ = await say(room, "ca", "requests", "export", "--authority", BY_POST, "--out", str(out))
            if status == 0:
                requests = (json.loads(one["request"]) for one in json.loads(text_of(out))["requests"])
                stated.update(next((one for one in requests if one["order_id"] == order_id), {}))
            return bool(stated)

        await until(exported, within_s=40)
        issued = handed_over(ca.issue(stated["csr"].encode()), folder)
        said = (
            "ca",
            "certificates",
            "import",
            "--authority",
            BY_POST,
            str(issued),
            str(handed_over(ca.issuing, folder)),
        )
        status, told = await say(room, *said)
        assert status == 0, told
        async with asyncio.timeout(20):
            accepted = await heard.get()
            # The connector tells of what other tests had certified, too.
            while not isinstance(accepted, AcceptCertificate) or accepted.order_id != order_id:
                accepted = await heard.get()
        assert len(accepted.chain) == 3
        status, told = await say(room, "--json", *said)
        assert status == 0
        assert "known" in told
        stray = handed_over(ca.issue(request_for(new_key()), "stray.pem"), folder)
        status, told = await say(room, "ca", "certificates", "import", "--authority", BY_POST, str(stray))
        assert status == 1
        assert "for this key" in told


def text_of(file: Path) -> str:
    return file.read_text()


def desk_of(stack: Stack) -> Path:
    """A folder in which the operator's door, which may be another user's, can write."""
    folder = stack.folder / f"desk-{secrets.token_hex(4)}"
    stack.rooms.account.folder(folder)
    return folder


def handed_over(file: Path, folder: Path) -> Path:
    copy = folder / file.name
    copy.write_bytes(file.read_bytes())
    copy.chmod(0o644)
    return copy
