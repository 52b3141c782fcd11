"""Each command of the operator: what is asked of which room, and what is told of the answer."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pydantic import SecretStr, ValidationError

from services.operator import certification, time_stamping
from services.operator.terminal import NotUnderstoodError, SecretFile, Terminal, read_certificate, read_file, read_pin
from services.operator.words import Words
from shared.algorithms import KeyAlgorithm, Profile
from shared.contracts.approval import IssueTicket, ReadOverview, RemoveAuthenticator
from shared.contracts.authentication import (
    AddClient,
    AddTenant,
    ClientMethod,
    ClientRow,
    ListAccounts,
    SetNoticeAddress,
    SuspendClient,
    SuspendTenant,
    TenantRow,
)
from shared.contracts.base import Message, R, Request
from shared.contracts.sam import (
    AddCredential,
    AddSigner,
    CredentialRow,
    DeleteCredential,
    Inventory,
    ListInventory,
    SignerRow,
    SuspendCredential,
    UnlockSigner,
)
from shared.errors import RETRYABLE, Code, RakkanError
from shared.messaging import operation
from shared.messaging.topology import OPERATOR
from shared.sealing import Secrets, seal, unseal
from shared.trust import Trust

_UNDER_WAY = frozenset({"requested", "generated", "ordered"})
_POLL_S = (0.2, 2.0)


class Bus(Protocol):
    async def ask(self, request: Request[R]) -> R: ...


@dataclass(frozen=True)
class Inputs:
    """What a command needs besides its words, taken before anything is asked: a prompt must not hold up the bus."""

    pin: str | None = field(default=None, repr=False)
    jwks: str | None = None
    secret_file: SecretFile | None = None

    def close(self) -> None:
        if self.secret_file is not None:
            self.secret_file.close()


def collect(words: Words, terminal: Terminal) -> Inputs:
    """Ask for what has to be typed, read and open the files."""
    _confirm(words, terminal)
    pin = jwks = None
    if getattr(words, "pin_file", None):
        pin = read_pin(words.pin_file)
    elif words.command == "add-signer" or getattr(words, "new_pin", False):
        pin = terminal.ask_new_pin()
    if getattr(words, "jwks_file", None):
        jwks = read_file(words.jwks_file)
    elif getattr(words, "certificate_file", None):
        jwks = read_certificate(words.certificate_file)
    comes = (
        words.command == "ticket"
        or (words.command == "add-client" and jwks is None and words.certificate_name is None)
        or (words.command == "add-signer" and words.totp)
    )
    wanted = getattr(words, "secret_file", None)
    if comes and not wanted and not words.show_secret:
        raise NotUnderstoodError("a secret will be made, once: say where to, by --secret-file or --show-secret")
    return Inputs(pin=pin, jwks=jwks, secret_file=SecretFile(wanted) if comes and wanted else None)


def _method(words: Words) -> ClientMethod:
    if words.jwks_file:
        return "private_key_jwt"
    if words.certificate_file:
        return "self_signed_tls_client_auth"
    return "tls_client_auth" if words.certificate_name else "client_secret"


def _confirm(words: Words, terminal: Terminal) -> None:
    if words.command == "delete" and not words.yes:
        terminal.confirm(f"This destroys the key of {words.id} for ever. Type its id to confirm:", words.id)
    if words.command == "remove-authenticator" and not words.yes:
        terminal.confirm(f"Nothing can be approved with {words.id} any more. Type its id to confirm:", words.id)


class Door:
    def __init__(
        self,
        *,
        bus: Bus,
        trust: Trust,
        sealing_key: X25519PrivateKey,
        terminal: Terminal,
        ask_timeout_s: float,
        authentication_url: str | None = None,
    ) -> None:
        self._bus = bus
        self._trust = trust
        self._sealing_key = sealing_key
        self._terminal = terminal
        self._ask_timeout_s = ask_timeout_s
        self._authentication_url = authentication_url

    async def do(self, words: Words, inputs: Inputs) -> None:
        """Do what was said; RakkanError when it is refused."""
        commands: dict[str, Callable[[Words, Inputs], Awaitable[None]]] = {
            "add-tenant": self._add_tenant,
            "add-client": self._add_client,
            "add-signer": self._add_signer,
            "add-credential": self._add_credential,
            "ticket": self._ticket,
            "notice-address": self._notice_address,
            "authenticators": self._authenticators,
            "remove-authenticator": self._remove_authenticator,
            "list": self._list,
            "suspend": self._suspend,
            "resume": self._suspend,
            "unlock": self._unlock,
            "delete": self._delete,
            "tsa": self._time_stamping,
            "ca": self._certification,
        }
        await commands[words.command](words, inputs)

    async def _time_stamping(self, words: Words, _: Inputs) -> None:
        await time_stamping.tell(words, self._ask, self._terminal)

    async def _certification(self, words: Words, _: Inputs) -> None:
        await certification.tell(words, self._ask, self._terminal)

    async def _add_tenant(self, words: Words, _: Inputs) -> None:
        await self._ask(_request(AddTenant, tenant_id=words.tenant, name=words.name))
        self._terminal.tell(f"The tenant {words.tenant} is there.", {"tenant_id": words.tenant})

    async def _add_client(self, words: Words, inputs: Inputs) -> None:
        request = _request(
            AddClient,
            tenant_id=words.tenant,
            client_id=words.client,
            name=words.name,
            method=_method(words),
            jwks=inputs.jwks,
            certificate_name=words.certificate_name,
            profile=words.profile,
            redirect_uris=tuple(words.redirect_uri),
            flags=tuple(words.flag),
        )
        added = await self._ask(request)
        secret = self._opened(added.secret, AddClient, words.client).client_secret if added.secret else None
        self._tell_with_secret(
            words, inputs, f"The client {words.client} is there.", {"client_id": words.client}, "client_secret", secret
        )

    async def _add_signer(self, words: Words, inputs: Inputs) -> None:
        request = _request(
            AddSigner,
            tenant_id=words.tenant,
            user_id=words.user,
            common_name=words.name,
            organization=words.organization,
            country=words.country,
            organization_identifier=words.organization_identifier,
            subject_type=words.subject_type,
            secrets=self._sealed_pin(inputs, AddSigner, words.user),
            with_totp=words.totp,
        )
        added = await self._ask(request)
        secret = self._opened(added.totp_secret, AddSigner, words.user).totp_secret if added.totp_secret else None
        facts = {"user_id": words.user, "signer_id": added.signer_id}
        self._tell_with_secret(words, inputs, f"The signer {words.user} is enrolled.", facts, "totp_secret", secret)

    async def _ticket(self, words: Words, inputs: Inputs) -> None:
        """The address goes to the signer alone, by a way that reaches nobody else: who has it can enroll."""
        issued = await self._ask(_request(IssueTicket, tenant_id=words.tenant, user_id=words.user))
        ticket = self._opened(issued.ticket, IssueTicket, words.user).ticket
        if ticket is None:
            raise RakkanError(Code.INTERNAL, "the answer holds no ticket")
        secret = ticket.get_secret_value()
        base = self._authentication_url
        address = SecretStr(f"{base}/enroll?ticket={quote(secret, safe='')}" if base else secret)
        text = f"A ticket for the signer {words.user}: once, until {issued.expires_at:%Y-%m-%d %H:%M} UTC."
        facts = {"user_id": words.user, "expires_at": issued.expires_at.isoformat()}
        self._tell_with_secret(words, inputs, text, facts, "enrollment_url" if base else "ticket", address)

    async def _notice_address(self, words: Words, _: Inputs) -> None:
        await self._ask(_request(SetNoticeAddress, tenant_id=words.tenant, user_id=words.user, email=words.email))
        told = "is told of added passkeys at that address" if words.email else "has no address for notices"
        self._terminal.tell(f"{words.user} {told}.", {"user_id": words.user})

    async def _authenticators(self, words: Words, _: Inputs) -> None:
        """Only what can be removed; whose documents were signed is the signer's own business."""
        overview = await self._ask(_request(ReadOverview, tenant_id=words.tenant, user_id=words.user, history_max=1))
        self._terminal.tell_tables({"authenticators": [row.model_dump(mode="json") for row in overview.authenticators]})

    async def _remove_authenticator(self, words: Words, _: Inputs) -> None:
        await self._ask(
            _request(RemoveAuthenticator, tenant_id=words.tenant, user_id=words.user, authenticator_id=words.id)
        )
        text = f"The authenticator {words.id} of {words.user} is stopped for good."
        self._terminal.tell(text, {"authenticator_id": words.id, "user_id": words.user})

    async def _add_credential(self, words: Words, _: Inputs) -> None:
        request = _request(
            AddCredential,
            credential_id=words.credential,
            tenant_id=words.tenant,
            user_id=words.user,
            description=words.description,
            key_algorithm=KeyAlgorithm(words.key),
            profile=Profile(words.profile),
            authority=words.authority,
            certificate_profile=words.certificate_profile,
            assurance=words.assurance,
            otp_required=words.otp,
            hashes_required=words.hashes_required,
            signatures_max=words.signatures_max,
        )
        await self._ask(request)
        if words.wait is None:
            text = f"The credential {words.credential} is ordered; `list` shows when it is active."
            self._terminal.tell(text, {"credential_id": words.credential})
            return
        row = await self._wait(words.credential, words.tenant, words.wait)
        self._terminal.tell(f"The credential {words.credential} is active.", row.model_dump(mode="json"))

    async def _wait(self, credential_id: str, tenant_id: str, wait_s: float) -> CredentialRow:
        """The credential, once it is active. Whatever it ends as instead is a refusal, and so is a wait too long."""
        began, pause_s, seen = monotonic(), _POLL_S[0], ""
        while True:
            row = await self._look(credential_id, tenant_id)
            waited_s = monotonic() - began
            if row is not None and row.state != seen:
                seen = row.state
                self._terminal.progress(f"{waited_s:5.1f} s  {row.state}")
            if row is not None and row.state == "active":
                return row
            if row is not None and row.state not in _UNDER_WAY:
                why = f", because: {row.reason}" if row.reason else ""
                raise RakkanError(Code.CERTIFICATE_REFUSED, f"the credential is {row.state}{why}")
            if waited_s >= wait_s:
                raise RakkanError(
                    Code.AUTHORITY_UNAVAILABLE,
                    f"still {seen or 'unseen'} after {wait_s:g} s; `list` shows how it goes on",
                )
            await asyncio.sleep(min(pause_s, wait_s - waited_s))
            pause_s = min(pause_s * 1.5, _POLL_S[1])

    async def _look(self, credential_id: str, tenant_id: str) -> CredentialRow | None:
        """The credential as it is now; None when the SAM does not answer, which a wait outlives."""
        try:
            inventory: Inventory = await self._ask(_request(ListInventory, tenant_id=tenant_id))
        except RakkanError as refusal:
            if refusal.code not in RETRYABLE:
                raise
            return None
        for row in inventory.credentials:
            if row.credential_id == credential_id:
                return row
        raise RakkanError(Code.NOT_FOUND, f"the credential {credential_id} is gone")

    async def _list(self, words: Words, _: Inputs) -> None:
        accounts = await self._ask(ListAccounts())
        inventory = await self._ask(_request(ListInventory, tenant_id=words.tenant))
        tables: dict[str, Sequence[TenantRow | ClientRow | SignerRow | CredentialRow]] = {
            "tenants": accounts.tenants,
            "clients": accounts.clients,
            "signers": inventory.signers,
            "credentials": inventory.credentials,
        }
        self._terminal.tell_tables(
            {
                name: [row.model_dump(mode="json") for row in rows if words.tenant in (None, row.tenant_id)]
                for name, rows in tables.items()
            }
        )

    async def _suspend(self, words: Words, _: Inputs) -> None:
        suspended = words.command == "suspend"
        requests: dict[str, Callable[[], Request[Any]]] = {
            "tenant": lambda: _request(SuspendTenant, tenant_id=words.id, suspended=suspended),
            "client": lambda: _request(SuspendClient, client_id=words.id, suspended=suspended),
            "credential": lambda: _request(SuspendCredential, credential_id=words.id, suspended=suspended),
        }
        await self._ask(requests[words.kind]())
        how = "suspended" if suspended else "at work again"
        facts = {f"{words.kind}_id": words.id, "suspended": suspended}
        self._terminal.tell(f"The {words.kind} {words.id} is {how}.", facts)

    async def _unlock(self, words: Words, inputs: Inputs) -> None:
        secrets = self._sealed_pin(inputs, UnlockSigner, words.user) if inputs.pin is not None else None
        await self._ask(_request(UnlockSigner, tenant_id=words.tenant, user_id=words.user, secrets=secrets))
        self._terminal.tell(f"The signer {words.user} has the tries back.", {"user_id": words.user})

    async def _delete(self, words: Words, _: Inputs) -> None:
        await self._ask(_request(DeleteCredential, credential_id=words.id))
        text = f"The credential {words.id} has ended. Its key is being destroyed and its certificate revoked."
        self._terminal.tell(text, {"credential_id": words.id})

    async def _ask(self, request: Request[R]) -> R:
        with operation.begin(OPERATOR, timeout_s=self._ask_timeout_s):
            return await self._bus.ask(request)

    def _sealed_pin(self, inputs: Inputs, message: type[Message], user_id: str) -> bytes:
        to = self._trust.sealing_key("sam")
        return seal(Secrets.of(pin=inputs.pin), to=to, message=message.TYPE, subject=user_id)

    def _opened(self, sealed: bytes, message: type[Message], subject: str) -> Secrets:
        return unseal(sealed, key=self._sealing_key, message=message.TYPE, subject=subject)

    def _tell_with_secret(
        self, words: Words, inputs: Inputs, text: str, facts: dict[str, str], name: str, secret: SecretStr | None
    ) -> None:
        if secret is None:
            self._terminal.tell(text, facts)
        elif inputs.secret_file is not None:
            inputs.secret_file.write(secret.get_secret_value())
            self._terminal.tell(
                f"{text} The secret is in {words.secret_file}.", facts | {"secret_file": words.secret_file}
            )
        else:
            shown = secret.get_secret_value()
            self._terminal.tell(f"{text} The secret, shown this once:\n{shown}", facts | {name: shown})


M = TypeVar("M", bound=Message)


def _request(message: type[M], **fields: Any) -> M:
    """A request of these fields, or words about the one that is wrong."""
    try:
        return message(**fields)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise NotUnderstoodError(faults) from None
