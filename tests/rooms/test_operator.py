"""The operator's door: what each command asks, what it tells, and what it never shows."""

import json
import logging
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from services.authentication.certificates import check_own
from services.authentication.registration import check_registration
from services.operator.__main__ import DONE, NOT_UNDERSTOOD, REFUSED, main
from services.operator.door import Door, collect
from services.operator.terminal import NotUnderstoodError, SecretFile, Terminal
from services.operator.words import describe, parser
from shared.algorithms import KeyAlgorithm
from shared.contracts.approval import (
    AuthenticatorRow,
    Document,
    HistoryRow,
    IssueTicket,
    ReadOverview,
    RemoveAuthenticator,
    SignerOverview,
    TicketIssued,
)
from shared.contracts.authentication import (
    Accounts,
    AddClient,
    AddTenant,
    ClientAdded,
    ListAccounts,
    SetNoticeAddress,
    SuspendClient,
    SuspendTenant,
    TenantRow,
)
from shared.contracts.base import Done, Request
from shared.contracts.sam import (
    AddCredential,
    AddSigner,
    CredentialAdded,
    CredentialRow,
    DeleteCredential,
    Inventory,
    ListInventory,
    SignerAdded,
    SuspendCredential,
    UnlockSigner,
)
from shared.errors import Code, RakkanError
from shared.messaging import operation
from shared.messaging.topology import OPERATOR, ROUTES
from shared.sealing import Secrets, seal, unseal
from shared.trust import Trust
from tests.support.authentication import START
from tests.support.client_certificates import hold

SECRET = "rks_a-secret-made-by-authentication"
TOTP = "JBSWY3DPEHPK3PXP"
PIN = "a long pin"
TICKET = "rkt_for/once"
TOMORROW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


class Rooms:
    """The rooms behind the bus: they keep what they are asked and answer as they would."""

    def __init__(self, operator_key: X25519PrivateKey) -> None:
        self.asked: list[Request[Any]] = []
        self.states = ["requested", "ordered", "active"]
        self.reason: str | None = None
        self.refusal: RakkanError | None = None
        self._operator_key = operator_key.public_key()

    async def ask(self, request: Request[Any]) -> Any:
        assert operation.current().caller == OPERATOR
        assert OPERATOR in ROUTES[request.TYPE].callers
        self.asked.append(request)
        if self.refusal is not None:
            raise self.refusal
        answers: dict[type, Any] = {
            AddClient: self._client,
            AddSigner: self._signer,
            ListInventory: self._inventory,
            IssueTicket: self._ticket,
            ReadOverview: self._overview,
        }
        if type(request) in answers:
            return answers[type(request)](request)
        if isinstance(request, AddCredential):
            return CredentialAdded(credential_id=request.credential_id)
        if isinstance(request, ListAccounts):
            tenants = (
                TenantRow(tenant_id="acme", name="Acme\x1b[31m", suspended=False),
                TenantRow(tenant_id="other", name="Other", suspended=True),
            )
            return Accounts(tenants=tenants, clients=())
        return Done()

    def _client(self, request: AddClient) -> ClientAdded:
        if request.jwks:
            return ClientAdded(client_id=request.client_id)
        secrets = Secrets.of(client_secret=SECRET)
        sealed = seal(secrets, to=self._operator_key, message=AddClient.TYPE, subject=request.client_id)
        return ClientAdded(client_id=request.client_id, secret=sealed)

    def _signer(self, request: AddSigner) -> SignerAdded:
        if not request.with_totp:
            return SignerAdded(signer_id="s1")
        secrets = Secrets.of(totp_secret=TOTP)
        sealed = seal(secrets, to=self._operator_key, message=AddSigner.TYPE, subject=request.user_id)
        return SignerAdded(signer_id="s1", totp_secret=sealed)

    def _ticket(self, request: IssueTicket) -> TicketIssued:
        sealed = seal(
            Secrets.of(ticket=TICKET), to=self._operator_key, message=IssueTicket.TYPE, subject=request.user_id
        )
        return TicketIssued(ticket=sealed, expires_at=TOMORROW)

    def _overview(self, _: ReadOverview) -> SignerOverview:
        row = AuthenticatorRow(
            authenticator_id="k-1",
            label="Phone",
            kind="passkey",
            added_at=TOMORROW,
            usable_from=TOMORROW,
            removed=False,
        )
        signed = HistoryRow(
            at=TOMORROW,
            client_id="erp",
            client_name="ERP",
            credential_id="taro-1",
            outcome="approved",
            reference_code="ABC234",
            documents=(Document(digest=bytes(32), label="A private matter"),),
            signed=1,
        )
        return SignerOverview(authenticators=(row,), history=(signed,))

    def _inventory(self, _: ListInventory) -> Inventory:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        row = CredentialRow(
            credential_id="taro-1",
            tenant_id="acme",
            user_id="taro",
            description="d",
            key_algorithm=KeyAlgorithm.P256,
            authority="local",
            state=state,
            reason=self.reason,
            not_after=None,
        )
        return Inventory(signers=(), credentials=(row,))


class Desk:
    """An operator at the door."""

    def __init__(self) -> None:
        self.key = X25519PrivateKey.generate()
        self.sam_key = X25519PrivateKey.generate()
        self.rooms = Rooms(self.key)
        self.authentication_url: str | None = "https://auth.example"

    async def say(self, *words: str) -> None:
        said = parser().parse_args(words)
        terminal = Terminal(as_json=said.json)
        trust = Trust(epoch=1, verifying={}, sealing={"sam": self.sam_key.public_key()})
        door = Door(
            bus=self.rooms,
            trust=trust,
            sealing_key=self.key,
            terminal=terminal,
            ask_timeout_s=5,
            authentication_url=self.authentication_url,
        )
        inputs = collect(said, terminal)
        try:
            await door.do(said, inputs)
        finally:
            inputs.close()


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def pin_file(tmp_path: Path) -> str:
    file = tmp_path / "pin"
    file.write_text(PIN + "\n")
    return str(file)


CLIENT = ("add-client", "erp", "--tenant", "acme", "--name", "ERP")
SIGNER = ("add-signer", "taro", "--tenant", "acme", "--name", "Yamada Taro")
CREDENTIAL = ("add-credential", "taro-1", "--tenant", "acme", "--user", "taro")


async def test_a_tenant_is_added(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    await desk.say("--json", "add-tenant", "acme", "--name", "Acme Ltd")
    assert desk.rooms.asked == [AddTenant(tenant_id="acme", name="Acme Ltd")]
    assert json.loads(capsys.readouterr().out) == {"tenant_id": "acme"}


async def test_a_secret_goes_into_a_new_file_of_its_owner_alone(
    desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "secret"
    await desk.say(*CLIENT, "--secret-file", str(file))
    assert file.read_text() == SECRET + "\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    shown = capsys.readouterr()
    assert SECRET not in shown.out + shown.err


async def test_a_secret_is_shown_only_when_asked_for(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NotUnderstoodError):
        await desk.say(*CLIENT)
    assert not desk.rooms.asked
    await desk.say(*CLIENT, "--show-secret")
    assert SECRET in capsys.readouterr().out
    await desk.say("--json", *CLIENT, "--show-secret")
    assert json.loads(capsys.readouterr().out) == {"client_id": "erp", "client_secret": SECRET}


async def test_a_file_that_is_there_is_not_written_over_and_nothing_is_asked(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("another's")
    with pytest.raises(NotUnderstoodError):
        await desk.say(*CLIENT, "--secret-file", str(file))
    assert file.read_text() == "another's"
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotUnderstoodError):
        await desk.say(*CLIENT, "--secret-file", str(tmp_path / "link"))
    assert not desk.rooms.asked


async def test_a_refused_client_leaves_no_empty_file(desk: Desk, tmp_path: Path) -> None:
    desk.rooms.refusal = RakkanError(Code.CONFLICT)
    with pytest.raises(RakkanError):
        await desk.say(*CLIENT, "--secret-file", str(tmp_path / "secret"))
    assert not (tmp_path / "secret").exists()


async def test_a_client_with_keys_needs_no_place_for_a_secret(desk: Desk, tmp_path: Path) -> None:
    jwks = tmp_path / "jwks"
    jwks.write_text('{"keys": []}')
    await desk.say(*CLIENT, "--jwks-file", str(jwks))
    [asked] = desk.rooms.asked
    assert isinstance(asked, AddClient)
    assert (asked.method, asked.jwks) == ("private_key_jwt", '{"keys": []}')


async def test_a_client_with_a_certificate_needs_none_either(desk: Desk, tmp_path: Path) -> None:
    held = hold()
    certificate, key = held.write(tmp_path, "client")
    await desk.say(*CLIENT, "--certificate-file", str(certificate))
    await desk.say(*CLIENT, "--certificate-name", "dns:erp.example")
    own, issued = desk.rooms.asked
    assert isinstance(own, AddClient)
    assert isinstance(issued, AddClient)
    assert (own.method, own.certificate_name) == ("self_signed_tls_client_auth", None)
    check_own(held.shown(), own.jwks or "", now=START)
    check_registration(own)
    assert (issued.method, issued.certificate_name, issued.jwks) == ("tls_client_auth", "dns:erp.example", None)
    for key_of_a_kind in (rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()):
        other, _ = hold(key=key_of_a_kind).write(tmp_path, "other")
        await desk.say(*CLIENT, "--certificate-file", str(other))
        check_registration(AddClient.model_validate(desk.rooms.asked[-1].model_dump()))
    with pytest.raises(NotUnderstoodError, match="no certificate in PEM"):
        await desk.say(*CLIENT, "--certificate-file", str(key))


async def test_a_signers_address_for_notices_is_set_and_taken_away(desk: Desk) -> None:
    to = ("notice-address", "taro", "--tenant", "acme")
    await desk.say(*to, "--email", "taro@acme.example")
    await desk.say(*to, "--none")
    asked = [one for one in desk.rooms.asked if isinstance(one, SetNoticeAddress)]
    assert [(one.user_id, one.email) for one in asked] == [("taro", "taro@acme.example"), ("taro", None)]


async def test_a_pin_travels_sealed_to_the_sam_for_one_signer(
    desk: Desk, pin_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await desk.say(*SIGNER, "--pin-file", pin_file, "--totp", "--show-secret")
    [asked] = desk.rooms.asked
    assert isinstance(asked, AddSigner)
    pin = unseal(asked.secrets, key=desk.sam_key, message=AddSigner.TYPE, subject="taro").pin
    assert pin is not None
    assert pin.get_secret_value() == PIN
    with pytest.raises(RakkanError):
        unseal(asked.secrets, key=desk.sam_key, message=AddSigner.TYPE, subject="jiro")
    out = capsys.readouterr().out
    assert TOTP in out
    assert PIN not in out


async def test_a_pin_has_no_place_on_the_command_line(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        await desk.say(*SIGNER, "--pin", PIN)
    assert end.value.code == NOT_UNDERSTOOD
    assert "unrecognized arguments: --pin" in capsys.readouterr().err


async def test_without_a_terminal_nothing_is_asked_at_one(desk: Desk) -> None:
    for words in (SIGNER, ("delete", "credential", "taro-1"), ("unlock", "taro", "--tenant", "acme", "--new-pin")):
        with pytest.raises(NotUnderstoodError):
            await desk.say(*words)
    assert not desk.rooms.asked


async def test_a_credential_is_waited_for(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    await desk.say("--json", *CREDENTIAL, "--key", "rsa3072", "--otp", "--wait")
    asked = desk.rooms.asked[0]
    assert isinstance(asked, AddCredential)
    assert (asked.key_algorithm, asked.otp_required, asked.signatures_max) == (KeyAlgorithm.RSA3072, True, 100)
    told = capsys.readouterr()
    assert json.loads(told.out)["state"] == "active"
    assert [line.split()[-1] for line in told.err.splitlines()] == ["requested", "ordered", "active"]


async def test_a_credential_that_is_refused_ends_the_wait_with_the_reason(desk: Desk) -> None:
    desk.rooms.states, desk.rooms.reason = ["ordered", "refused"], "the CA does not know the policy"
    with pytest.raises(RakkanError) as refusal:
        await desk.say(*CREDENTIAL, "--wait")
    assert "the CA does not know the policy" in refusal.value.detail


async def test_a_wait_has_an_end(desk: Desk) -> None:
    desk.rooms.states = ["ordered"]
    with pytest.raises(RakkanError) as refusal:
        await desk.say(*CREDENTIAL, "--wait", "0.1")
    assert refusal.value.code is Code.AUTHORITY_UNAVAILABLE


async def test_a_list_is_of_one_tenant_when_asked_and_moves_no_cursor(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    await desk.say("list")
    everything = capsys.readouterr().out
    assert "Other" in everything
    assert "\x1b" not in everything
    await desk.say("--json", "list", "--tenant", "acme")
    told = json.loads(capsys.readouterr().out)
    assert [row["tenant_id"] for row in told["tenants"]] == ["acme"]
    assert [row["credential_id"] for row in told["credentials"]] == ["taro-1"]


@pytest.mark.parametrize(
    ("words", "request_"),
    [
        (("suspend", "tenant", "acme"), SuspendTenant(tenant_id="acme", suspended=True)),
        (("resume", "client", "erp"), SuspendClient(client_id="erp", suspended=False)),
        (("suspend", "credential", "c"), SuspendCredential(credential_id="c", suspended=True)),
        (("delete", "credential", "c", "--yes"), DeleteCredential(credential_id="c")),
        (("unlock", "taro", "--tenant", "acme"), UnlockSigner(tenant_id="acme", user_id="taro")),
    ],
)
async def test_states_are_changed(desk: Desk, words: tuple[str, ...], request_: Request[Any]) -> None:
    await desk.say(*words)
    assert desk.rooms.asked == [request_]


async def test_unlocking_may_set_a_new_pin(desk: Desk, pin_file: str) -> None:
    await desk.say("unlock", "taro", "--tenant", "acme", "--pin-file", pin_file)
    [asked] = desk.rooms.asked
    assert isinstance(asked, UnlockSigner)
    assert asked.secrets is not None
    pin = unseal(asked.secrets, key=desk.sam_key, message=UnlockSigner.TYPE, subject="taro").pin
    assert pin is not None
    assert pin.get_secret_value() == PIN


@pytest.mark.parametrize(
    "words",
    [
        ("add-tenant", "no spaces", "--name", "x"),
        ("add-tenant", "acme", "--name", ""),
        (*CREDENTIAL, "--signatures-max", "0"),
        (*CREDENTIAL, "--authority", "?"),
    ],
)
async def test_what_cannot_be_is_told_before_it_is_asked(desk: Desk, words: tuple[str, ...]) -> None:
    with pytest.raises(NotUnderstoodError):
        await desk.say(*words)
    assert not desk.rooms.asked


def test_every_refusal_says_who_can_mend_it() -> None:
    for code in Code:
        text = describe(RakkanError(code, "why"))
        assert "why" in text
        assert any(word in text for word in ("can mend it", "mends itself", "must look", "must compare"))


def test_a_secret_file_in_no_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotUnderstoodError):
        SecretFile(str(tmp_path / "missing" / "secret"))


@pytest.fixture
def _logs() -> Iterator[None]:
    """The door silences the logs of its process, which here is the tests' process."""
    yield
    logging.disable(logging.NOTSET)
    structlog.reset_defaults()


@pytest.mark.usefixtures("_logs")
def test_the_exit_status_tells_what_happened(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert (DONE, REFUSED, NOT_UNDERSTOOD) == (0, 1, 2)
    assert main(["list"]) == NOT_UNDERSTOOD
    assert "RAKKAN_BROKER" in capsys.readouterr().err
    monkeypatch.setenv("RAKKAN_BROKER__PASSWORD_FILE", str(tmp_path / "none"))
    for name in ("BUNDLE", "MESSAGES_KEY", "SEALING_KEY"):
        monkeypatch.setenv(f"RAKKAN_TRUST__{name}_FILE", str(tmp_path / "none"))
    assert main(["list"]) == NOT_UNDERSTOOD
    assert "keys of this door" in capsys.readouterr().err


async def test_a_client_that_sends_signers_to_the_page_has_its_addresses_and_flags(desk: Desk) -> None:
    uris = ("https://erp.example/back", "http://127.0.0.1/back")
    words = [word for uri in uris for word in ("--redirect-uri", uri)]
    await desk.say(*CLIENT, *words, "--flag", "token-type-sad", "--flag", "pkce-optional", "--show-secret")
    asked = desk.rooms.asked[-1]
    assert isinstance(asked, AddClient)
    assert (asked.redirect_uris, asked.profile) == (uris, "csc-compat")
    assert asked.flags == ("token-type-sad", "pkce-optional")


async def test_a_hardened_client_is_added_with_its_keys(desk: Desk, tmp_path: Path) -> None:
    keys = tmp_path / "jwks.json"
    keys.write_text('{"keys": []}')
    await desk.say(*CLIENT, "--jwks-file", str(keys), "--profile", "hardened", "--redirect-uri", "https://erp.example/")
    asked = desk.rooms.asked[-1]
    assert isinstance(asked, AddClient)
    assert (asked.method, asked.profile) == ("private_key_jwt", "hardened")


async def test_a_credential_for_the_page_is_ordered(desk: Desk) -> None:
    await desk.say(*CREDENTIAL, "--assurance", "SCAL2-passkey")
    asked = desk.rooms.asked[-1]
    assert isinstance(asked, AddCredential)
    assert asked.assurance == "SCAL2-passkey"


async def test_a_ticket_is_an_address_that_is_shown_only_when_asked_for(
    desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(NotUnderstoodError):
        await desk.say("ticket", "taro", "--tenant", "acme")
    assert not desk.rooms.asked
    file = tmp_path / "ticket"
    await desk.say("ticket", "taro", "--tenant", "acme", "--secret-file", str(file))
    assert file.read_text() == "https://auth.example/enroll?ticket=rkt_for%2Fonce\n"
    assert "rkt_" not in capsys.readouterr().out
    await desk.say("--json", "ticket", "taro", "--tenant", "acme", "--show-secret")
    shown = json.loads(capsys.readouterr().out)
    assert shown["enrollment_url"] == "https://auth.example/enroll?ticket=rkt_for%2Fonce"
    assert shown["expires_at"].startswith("2026-01-02T03:04")


async def test_without_the_address_of_authentication_the_bare_ticket_is_given(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.authentication_url = None
    await desk.say("--json", "ticket", "taro", "--tenant", "acme", "--show-secret")
    assert json.loads(capsys.readouterr().out)["ticket"] == TICKET


async def test_a_signers_authenticators_are_shown_and_not_what_was_signed(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    await desk.say("authenticators", "taro", "--tenant", "acme")
    shown = capsys.readouterr().out
    assert "k-1" in shown
    assert "Phone" in shown
    assert "private" not in shown


async def test_a_lost_authenticator_is_stopped(desk: Desk) -> None:
    words = ("remove-authenticator", "k-1", "--tenant", "acme", "--user", "taro")
    with pytest.raises(NotUnderstoodError):
        await desk.say(*words)
    assert not desk.rooms.asked
    await desk.say(*words, "--yes")
    assert desk.rooms.asked == [RemoveAuthenticator(tenant_id="acme", user_id="taro", authenticator_id="k-1")]
