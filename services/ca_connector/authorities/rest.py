"""Any CA that takes an order by REST and is polled for it, as the registry describes it (`rest_connection.py`).

Knows no CA. What an answer holds is looked for where the registry says; a word that it does not know is nonsense, for
to guess at "issued" or "refused" is worse than to let an operator look.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from cryptography import x509

from services.ca_connector.answers import JSON, look, words
from services.ca_connector.authorities import Capabilities, Health, Surroundings
from services.ca_connector.authorities.rest_connection import Call, Connection, Login, Place, RevocationCall
from services.ca_connector.certificates import chain_for, read_certificates
from services.ca_connector.client import Answer, Peer, basic
from services.ca_connector.orders import Issued, Order, Outcome, Pending, Refused
from services.ca_connector.templates import fill, fill_path, values_of, values_of_revocation
from shared.errors import Code, RakkanError
from shared.registry import CertificationAuthority

__all__ = ["PROTOCOL", "Connection", "Rest", "open"]

PROTOCOL = "rest"
_SUCCESSES = range(200, 300)
_KEPT_MAX = 1000
"""Characters of one thing that a CA wants to be told again."""
_TOKEN_MAX = 20_000


def open(ca: CertificationAuthority, connection: Connection, surroundings: Surroundings) -> "Rest":  # noqa: A001 - the name all adapters have
    secrets, login = surroundings.secrets, connection.login
    secret = "" if login.secret is None else secrets.secret(login.secret)
    authorization = {"basic": basic(login.username or "", secret), "bearer": f"Bearer {secret}"}.get(login.kind)
    certificate = connection.client_certificate
    peer = Peer.open(
        connection.url,
        timeout_s=ca.timeout_s,
        connections_max=ca.concurrency_max,
        tls_anchors=connection.tls_anchors,
        client_certificate=None if certificate is None else secrets.secret_file(certificate),
        authorization=authorization,
    )
    headers = {name: secrets.secret(named) for name, named in login.headers.items()}
    credentials = {name: secrets.secret(named) for name, named in login.secrets.items()}
    door = Door(peer, login, headers=headers, credentials=credentials, now=surroundings.now)
    return Rest(ca, connection, door=door, now=surroundings.now)


class Rest:
    def __init__(
        self, ca: CertificationAuthority, connection: Connection, *, door: "Door", now: Callable[[], datetime]
    ) -> None:
        self.ca = ca
        self.connection = connection
        self.door = door
        self.now = now
        self.capabilities = Capabilities(
            polls=connection.status is not None,
            revokes=connection.revoke is not None,
            renews=connection.renew is not None,
            repeatable=connection.find is not None,
        )

    async def submit(self, order: Order) -> Outcome:
        values = self._values(order)
        find = self.connection.find
        if order.asked_before and find is not None:
            answer = await self.door.ask(find, values)
            if answer.status not in find.loses and (found := await self._found(find, answer, order)) is not None:
                return found
        call, previous = self.connection.order, order.previous
        if self.connection.renew is not None and previous is not None:
            call = self.connection.renew
            values |= {f"previous_{name}": value for name, value in _kept(previous).items()}
        # With `find` the order may be placed again: it is looked for first. Without, only once.
        answer = await self.door.ask(call, values, once=find is None)
        return await self._outcome(call, answer, order, is_new=True)

    async def poll(self, order: Order) -> Outcome:
        call = self.connection.status
        if call is None:
            raise RakkanError(Code.INDETERMINATE, "the registry describes no call to ask about an order")
        answer = await self.door.ask(call, self._values(order) | _kept(order))
        return await self._outcome(call, answer, order)

    async def confirm(self, order: Order, *, accepted: bool) -> None:
        """Nothing in these APIs waits for it."""

    async def revoke(self, order: Order, *, reason: int, at: datetime) -> None:
        call = self.connection.revoke
        if call is None:
            raise RakkanError(Code.AUTHORITY_REFUSED, "the registry describes no call to revoke")
        revocation = values_of_revocation(order.chain[0], reason=reason, at=at, reasons=self.connection.reasons)
        answer = await self.door.ask(call, self._values(order) | _kept(order) | revocation)
        if answer.status in _SUCCESSES:
            self._demand_shown(call, answer)
        elif not _was_before(call, said := self._reason(answer)):
            raise RakkanError(Code.AUTHORITY_REFUSED, f"not revoked: {said}")

    async def check(self) -> Health:
        if self.connection.check is not None:
            answer = await self.door.ask(self.connection.check, {})
            self._demand_success(answer)
            self._demand_shown(self.connection.check, answer)
        elif self.connection.login.kind == "token":
            await self.door.log_in()
        return Health(chain=await self._issuers())

    async def close(self) -> None:
        await self.door.close()

    async def _found(self, find: Call, answer: Answer, order: Order) -> Outcome | None:
        """Nothing when the CA answers well and knows nothing of the order."""
        document = _document(answer)
        names = self.connection.keep
        if answer.status in _SUCCESSES and names and all(_at(answer, document, at) is None for at in names.values()):
            return None
        return await self._outcome(find, answer, order)

    async def _outcome(self, call: Call, answer: Answer, order: Order, *, is_new: bool = False) -> Outcome:
        pends = answer.status in call.pends
        if not pends:
            if answer.status in call.refuses:
                return Refused(self._reason(answer))
            if answer.status in call.loses:
                raise RakkanError(Code.INDETERMINATE, f"the authority does not know the order: {self._reason(answer)}")
            self._demand_success(answer)
        document = _document(answer)
        kept = _kept(order) | self._to_keep(answer, document)
        state = "pending" if pends else self._state(answer, document, is_new=is_new)
        if state == "refused":
            return Refused(self._reason(answer))
        if state == "pending":
            return self._pending(answer, kept)
        try:
            return await self._issued(answer, order, kept)
        except RakkanError as trouble:
            if not is_new or trouble.code not in {Code.AUTHORITY_UNAVAILABLE, Code.AUTHORITY_REFUSED}:
                raise
            # The order is placed: to say "later" now would have it placed again.
            if self.connection.status is not None:
                return self._pending(answer, kept)
            raise RakkanError(Code.INDETERMINATE, f"issued, but not fetched: {trouble.detail}") from None

    async def _issued(self, answer: Answer, order: Order, kept: dict[str, str]) -> Outcome:
        if self.connection.certificate is not None:
            answer = await self.door.ask(self.connection.certificate, self._values(order) | kept)
            self._demand_success(answer)
        document = _document(answer)
        found = _at(answer, document, self.connection.certificate_at)
        if found is None:
            raise RakkanError(Code.AUTHORITY_UNTRUSTED, "issued, but there is no certificate where it should be")
        certificates = _certificates(found)
        if self.connection.chain is None and self.connection.chain_at is not None:
            certificates += _certificates(_at(answer, document, self.connection.chain_at) or [])
        else:
            certificates += await self._issuers()
        chain = chain_for(order.csr, certificates, more=self.ca.intermediate_certificates)
        return Issued(chain, handle=json.dumps(kept).encode())

    async def _issuers(self) -> tuple[x509.Certificate, ...]:
        call, place = self.connection.chain, self.connection.chain_at
        if call is None or place is None:
            return ()
        answer = await self.door.ask(call, {})
        self._demand_success(answer)
        return _certificates(_at(answer, _document(answer), place) or [])

    def _state(self, answer: Answer, document: Any, *, is_new: bool) -> str:
        states = self.connection.states
        said = None if states is None else _at(answer, document, states.at)
        if states is None or said is None:
            if is_new and self.connection.status is not None:
                return "pending"  # many say no more than under which name to ask
            if states is None:
                return "issued"
        for state, named in (("issued", states.issued), ("pending", states.pending), ("refused", states.refused)):
            if said in named:
                return state
        raise RakkanError(Code.AUTHORITY_UNTRUSTED, f"a state that the registry does not know: {words(said)}")

    def _pending(self, answer: Answer, kept: Mapping[str, str]) -> Pending:
        if self.connection.status is None:
            raise RakkanError(Code.AUTHORITY_UNTRUSTED, "pending, but the registry describes no call to ask about it")
        if missing := self.connection.status.names & self.connection.keep.keys() - kept.keys():
            raise RakkanError(Code.AUTHORITY_UNTRUSTED, f"pending, but it did not say its {', '.join(sorted(missing))}")
        return Pending(json.dumps(kept).encode(), answer.retry_after(self.now()))

    def _to_keep(self, answer: Answer, document: Any) -> dict[str, str]:
        kept = {}
        for name, place in self.connection.keep.items():
            found = _at(answer, document, place)
            if isinstance(found, str | int) and not isinstance(found, bool) and 0 < len(str(found)) <= _KEPT_MAX:
                kept[name] = str(found)
        return kept

    def _reason(self, answer: Answer) -> str:
        document = _document(answer)
        found = (_at(answer, document, place) for place in self.connection.reason_at)
        said = next((one for one in found if one), document)
        return (words(said) if said else "") or f"HTTP status {answer.status}"

    def _demand_success(self, answer: Answer) -> None:
        if answer.status not in _SUCCESSES:
            detail = f"HTTP status {answer.status}: {self._reason(answer)}"
            raise RakkanError(Code.AUTHORITY_UNTRUSTED, detail)

    @staticmethod
    def _demand_shown(call: Call, answer: Answer) -> None:
        """A page of somebody else's may have any status: JSON that is none is not believed."""
        document = _document(answer)
        if answer.body and document is None and answer.content_type in JSON:
            raise RakkanError(Code.AUTHORITY_UNTRUSTED, "an answer that is not JSON")
        if call.shows is not None and not _at(answer, document, call.shows):
            raise RakkanError(Code.AUTHORITY_UNTRUSTED, "a success without what one must hold")

    def _values(self, order: Order) -> dict[str, Any]:
        return values_of(order, self.ca.profiles[order.profile], now=self.now())


class Door:
    """The calls, with whatever the CA knows us by."""

    def __init__(
        self,
        peer: Peer,
        login: Login,
        *,
        headers: Mapping[str, str],
        credentials: Mapping[str, str],
        now: Callable[[], datetime],
    ) -> None:
        self._peer = peer
        self._login = login
        self._headers = headers
        self._credentials = credentials
        self._now = now
        self._one_at_a_time = asyncio.Lock()
        self._token: tuple[str, datetime] | None = None

    async def close(self) -> None:
        await self._peer.close()

    async def ask(self, call: Call, values: Mapping[str, Any], *, once: bool = False) -> Answer:
        if self._login.kind != "token":
            return await self._exchange(call, values, once=once)
        try:
            return await self._exchange(call, values, token=await self.log_in(), once=once)
        except RakkanError as refusal:
            if refusal.code is not Code.AUTHORITY_REFUSED:
                raise
        self._token = None
        return await self._exchange(call, values, token=await self.log_in(), once=once)

    async def log_in(self) -> str:
        """A token that should still be good."""
        async with self._one_at_a_time:
            if self._token is not None and self._now() < self._token[1]:
                return self._token[0]
            call, place = self._login.call, self._login.token_at
            if call is None or place is None:
                raise RakkanError(Code.INTERNAL, "a login of the kind token without its call")
            answer = await self._exchange(call, self._credentials)
            if answer.status not in _SUCCESSES:
                raise RakkanError(Code.AUTHORITY_REFUSED, f"the login is refused: HTTP status {answer.status}")
            token = _at(answer, _document(answer), place)
            if not isinstance(token, str) or not 0 < len(token) <= _TOKEN_MAX or not token.isprintable():
                raise RakkanError(Code.AUTHORITY_UNTRUSTED, "the answer to the login holds no token")
            self._token = token, self._now() + timedelta(seconds=self._login.token_s)
            return token

    async def _exchange(
        self, call: Call, values: Mapping[str, Any], *, token: str | None = None, once: bool = False
    ) -> Answer:
        headers = {**self._headers, **{name: str(one) for name, one in fill(dict(call.headers), values).items()}}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        content = b""
        if call.form is not None:
            headers["content-type"] = "application/x-www-form-urlencoded"
            content = urlencode(fill(dict(call.form), values)).encode()
        elif call.body is not None:
            headers["content-type"] = "application/json"
            content = json.dumps(fill(call.body, values)).encode()
        path = fill_path(call.path, values)
        return await self._peer.request(
            call.method, path, content=content, headers=headers, expects=call.accepts, returns=call.pends, once=once
        )


def _document(answer: Answer) -> Any:
    """Nothing when the body is not JSON: then only its headers or the whole of it can be meant."""
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        return None


def _at(answer: Answer, document: Any, place: Place) -> Any:
    if place.header is not None:
        found: Any = answer.headers.get(place.header.lower())
    elif place.body:
        found = answer.body or None
    else:
        found = look(document, place.pointer or "")
    if place.last_segment and isinstance(found, str):
        return found.split("?")[0].rstrip("/").rpartition("/")[2]
    return found


def _certificates(found: Any) -> tuple[x509.Certificate, ...]:
    if isinstance(found, list):
        return tuple(one for part in found[:20] for one in _certificates(part))
    content = found.encode() if isinstance(found, str) else found
    if not isinstance(content, bytes):
        raise RakkanError(Code.AUTHORITY_UNTRUSTED, "no certificate where one should be")
    return read_certificates(content)


def _was_before(call: RevocationCall, said: str) -> bool:
    return any(word.lower() in said.lower() for word in call.already)


def _kept(order: Order) -> dict[str, str]:
    if order.handle is None:
        return {}
    try:
        kept = json.loads(order.handle)
    except ValueError:
        raise RakkanError(Code.INDETERMINATE, "the handle of the order cannot be read") from None
    return {str(name): str(value) for name, value in kept.items()} if isinstance(kept, dict) else {}
