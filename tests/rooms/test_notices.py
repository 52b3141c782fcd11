"""A signer is told that a passkey was added: over a real mail server in every mood, and never less than once."""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from pydantic import ValidationError

from services.authentication import settings as authentication
from services.authentication.mailing import Mailer
from services.authentication.notices import Notice, Notices, Outcome, send_for_ever, wait_s
from shared.contracts.authentication import NoticeAuthenticator, SetNoticeAddress
from shared.errors import Code, RakkanError
from tests.support.authentication import Clock, settings
from tests.support.client_certificates import hold
from tests.support.smtp import MailServer, Mood

ALICE = "alice@acme.example"


@dataclass
class FakeStore:
    """The rows of `NoticeStore`, by its rules."""

    addresses: dict[tuple[str, str], str] = field(default_factory=dict)
    rows: dict[str, tuple[NoticeAuthenticator, datetime, int]] = field(default_factory=dict)
    ended: dict[str, tuple[str, str]] = field(default_factory=dict)
    down: bool = False

    async def set_address(self, tenant_id: str, user_id: str, email: str | None, *, at: datetime) -> None:  # noqa: ARG002 - the real one keeps it
        self.addresses.pop((tenant_id, user_id), None)
        if email is not None:
            self.addresses[tenant_id, user_id] = email

    async def add_notice(self, notice: NoticeAuthenticator, *, at: datetime) -> None:
        self.rows.setdefault(notice.authenticator_id, (notice, at, 0))

    async def take_notices(self, limit: int, *, now: datetime, wait_s: Callable[[int], float]) -> list[Notice]:
        if self.down:
            raise RakkanError(Code.UNAVAILABLE)
        taken: list[Notice] = []
        for name, (job, due, attempts) in list(self.rows.items()):
            if name in self.ended or due > now or len(taken) == limit:
                continue
            self.rows[name] = job, now + timedelta(seconds=wait_s(attempts)), attempts + 1
            signer = job.tenant_id, job.user_id
            taken.append(Notice(name, *signer, job.added_at, job.usable_from, attempts, self.addresses.get(signer)))
        return taken

    async def end_notice(self, notice: Notice, outcome: Outcome, *, reason: str, at: datetime) -> None:  # noqa: ARG002 - likewise
        self.ended.setdefault(notice.notice_id, (outcome, reason))


@dataclass
class Desk:
    """Notices over a mail server."""

    server: MailServer
    changed: dict[str, Any] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)
    store: FakeStore = field(default_factory=lambda: FakeStore({("acme", "alice"): ALICE}))

    @property
    def notices(self) -> Notices:
        given = {"host": "127.0.0.1", "port": self.server.port, "tls": "none", "sender": "sign@acme.example"}
        own = authentication.Notices.model_validate(given | {"timeout_s": 0.5} | self.changed)
        using = settings().model_copy(update={"notices": own, "time_zone": "Asia/Tokyo", "service_name": "署名局"})
        return Notices(store=self.store, mailer=Mailer(own, "127.0.0.1"), settings=using, now=self.clock.now)

    def job(self, user_id: str = "alice", name: str = "a1", *, waits: bool = True) -> NoticeAuthenticator:
        at = self.clock.now()
        return NoticeAuthenticator(
            authenticator_id=name,
            tenant_id="acme",
            user_id=user_id,
            added_at=at,
            usable_from=at + timedelta(days=1) if waits else at,
        )

    async def tell(self, job: NoticeAuthenticator | None = None) -> None:
        await self.notices.take_up(job or self.job())
        await self.notices.send_waiting()


async def test_an_added_passkey_is_told_in_both_languages() -> None:
    async with MailServer().serving() as server:
        desk = Desk(server)
        await desk.tell()
        [(to, mail)] = server.mails
    assert (to, mail["To"], mail["From"]) == (ALICE, ALICE, "署名局 <sign@acme.example>")
    assert mail["Message-ID"] == "<notice-a1@acme.example>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Subject"].endswith("パスキーが追加されました / A passkey was added to your account at 署名局")
    text = mail.get_content()
    for part in ("2026-11-25 21:00 JST", "2026-11-26 21:00 JST", "alice (acme)", "https://as.example/account"):
        assert part in text
    assert text.index("お心当たりがない場合は") < text.index("If it was not you, remove it")
    assert desk.store.ended == {"a1": ("sent", "signer")}


async def test_a_passkey_that_works_at_once_is_told_so() -> None:
    async with MailServer().serving() as server:
        await Desk(server).tell(Desk(server).job(waits=False))
        [(_, mail)] = server.mails
    assert "It can be used at once" in mail.get_content()
    assert "すぐに使えます" in mail.get_content()


async def test_a_message_that_comes_again_is_one_mail() -> None:
    async with MailServer().serving() as server:
        desk = Desk(server)
        for _ in range(3):
            await desk.tell()
        assert len(server.mails) == 1


@pytest.mark.parametrize("mood", ["silent", "drips", "greylists", "hangs_up", "full"])
async def test_what_a_server_does_not_take_now_is_tried_again_until_it_does(mood: Mood) -> None:
    async with MailServer(mood=mood).serving() as server:
        desk = Desk(server)
        async with asyncio.timeout(5):
            await desk.tell()
        assert not desk.store.ended
        await desk.notices.send_waiting()
        assert server.connections == 1  # not before its time
        server.mood = "good"
        desk.clock.pass_s(61)
        await desk.notices.send_waiting()
        assert [to for to, _ in server.mails] == [ALICE]
    assert desk.store.ended == {"a1": ("sent", "signer")}


async def test_a_server_that_is_down_loses_nothing() -> None:
    async with MailServer().serving() as server:
        desk = Desk(server)
    await desk.tell()
    for _ in range(20):
        desk.clock.pass_s(3601)
        await desk.notices.send_waiting()
    assert not desk.store.ended
    async with MailServer().serving() as again:
        desk.server = again
        desk.clock.pass_s(3601)
        await desk.notices.send_waiting()
        assert len(again.mails) == 1


async def test_a_lost_answer_brings_the_same_mail_again() -> None:
    async with MailServer(mood="forgets").serving() as server:
        desk = Desk(server)
        await desk.tell()
        server.mood = "good"
        desk.clock.pass_s(61)
        await desk.notices.send_waiting()
        assert [mail["Message-ID"] for _, mail in server.mails] == ["<notice-a1@acme.example>"] * 2


async def test_after_a_week_it_is_given_up_aloud() -> None:
    async with MailServer(mood="full").serving() as server:
        desk = Desk(server)
        await desk.tell()
        desk.clock.pass_s(7 * 86_400)
        await desk.notices.send_waiting()
    assert desk.store.ended == {"a1": ("undeliverable", "unreachable")}


async def test_who_has_no_address_or_a_wrong_one_is_told_by_the_operator() -> None:
    async with MailServer(refused=frozenset({ALICE})).serving() as server:
        desk = Desk(server, {"operator_email": "desk@acme.example"})
        await desk.tell()
        await desk.tell(desk.job("bob", "b1"))
        assert [to for to, _ in server.mails] == ["desk@acme.example"] * 2
        assert desk.store.ended == {"a1": ("sent", "operator"), "b1": ("sent", "operator")}
        alone = Desk(server)
        await alone.tell()
        await alone.tell(desk.job("bob", "b1"))
    assert alone.store.ended == {"a1": ("undeliverable", "refused"), "b1": ("undeliverable", "no_address")}


async def test_one_slow_mail_holds_no_other_up_for_long() -> None:
    async with MailServer(mood="silent").serving() as server:
        desk = Desk(server)
        for n in range(3):
            await desk.notices.take_up(desk.job(name=f"a{n}"))
        async with asyncio.timeout(4):
            await desk.notices.send_waiting()
        assert server.connections == 3


def certified(folder: Path, host: str = "127.0.0.1") -> tuple[ssl.SSLContext, Path]:
    now = datetime.now(UTC)
    ca = hold(subject="CN=Mail CA", authority=True, now=now)
    leaf = hold(ca, usage=None, now=now, names=(x509.DNSName(host), x509.IPAddress(ip_address(host))))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*leaf.write(folder, "server"))
    return context, ca.write(folder, "ca")[0]


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_a_mail_goes_over_tls_to_the_server_that_it_is_for(tmp_path: Path, tls: str) -> None:
    context, ca_file = certified(tmp_path)
    (tmp_path / "password").write_text("secret\n")
    own = {"tls": tls, "user": "rakkan", "password_file": tmp_path / "password"}
    server = MailServer(context=context, credentials="rakkan\0secret")
    async with server.serving(implicit=tls == "implicit"):
        trusting = Desk(server, own | {"ca_file": ca_file})
        await trusting.tell()
        assert len(server.mails) == 1
        await Desk(server, own).tell()  # whom this machine does not know
        (tmp_path / "password").write_text("wrong\n")
        await Desk(server, own | {"ca_file": ca_file}).tell()
        assert len(server.mails) == 1


async def test_nothing_goes_on_in_clear_where_the_server_offers_no_tls(tmp_path: Path) -> None:
    _, ca_file = certified(tmp_path)
    async with MailServer().serving() as server:
        desk = Desk(server, {"tls": "starttls", "ca_file": ca_file})
        await desk.tell()
        assert (server.mails, desk.store.ended) == ([], {})


async def test_without_a_mail_server_nothing_is_kept_or_sent() -> None:
    store = FakeStore()
    off = Notices(store=store, mailer=None, settings=settings(), now=Clock().now)
    await off.take_up(Desk(MailServer()).job())
    await off.send_waiting()
    assert not store.rows


async def test_an_address_is_set_changed_and_taken_away() -> None:
    store = FakeStore()
    notices = Notices(store=store, mailer=None, settings=settings(), now=Clock().now)
    for email in (ALICE, "a@b.example"):
        await notices.set_address(SetNoticeAddress(tenant_id="acme", user_id="alice", email=email))
        assert store.addresses == {("acme", "alice"): email}
    await notices.set_address(SetNoticeAddress(tenant_id="acme", user_id="alice", email=None))
    assert not store.addresses


@pytest.mark.parametrize(
    "email",
    ["", "alice", "@acme.example", "alice@", "a b@c.example", "a@b@c", "a@b\r\nBcc: evil@c", "Alice <a@b.c>", "é@b.c",
     '"a"@b.c', "a@-b.c", "a" * 65 + "@b.c", "a@" + "b" * 200],
)  # fmt: skip
def test_what_is_no_address_is_not_taken(email: str) -> None:
    with pytest.raises(ValidationError):
        SetNoticeAddress(tenant_id="acme", user_id="alice", email=email)


@pytest.mark.parametrize(
    "changed",
    [{"sender": ""}, {"sender": "a@b\nBcc: c@d"}, {"tls": "none", "host": "mail.example"}, {"user": "u"},
     {"operator_email": "nobody"}, {"host": "mail.example", "sender": "x", "tls": "starttls"}],
)  # fmt: skip
def test_settings_that_cannot_work_stop_the_start(changed: dict[str, Any]) -> None:
    good = {"host": "127.0.0.1", "tls": "none", "sender": "sign@acme.example"}
    authentication.Notices.model_validate(good)
    with pytest.raises(ValidationError):
        authentication.Notices.model_validate(good | changed)


def test_waits_grow_up_to_an_hour() -> None:
    assert [wait_s(n) for n in (0, 1, 2, 5, 6, 1000)] == [60, 120, 240, 1920, 3600, 3600]


async def test_a_database_that_is_away_ends_nothing() -> None:
    async with MailServer().serving() as server:
        desk = Desk(server)
        await desk.notices.take_up(desk.job())
        desk.store.down = True
        rounds = 0

        async def sleep(_: float) -> None:
            nonlocal rounds
            rounds += 1
            desk.store.down = False
            if rounds == 2:
                raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await send_for_ever(desk.notices, every_s=5, sleep=sleep)
        assert len(server.mails) == 1
