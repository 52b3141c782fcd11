"""ACME (RFC 8555) for a private CA: newOrder, authorizations, finalize, certificate, revokeCert.

What ACME cannot name: a person. Its identifiers are domains, addresses and the like, and a server of its letter has the
request name exactly those and drops the rest of the subject. This adapter orders for what the request names in its
subjectAltName, where the SAM puts a DNS name if the profile has a `dns_name`, else for the one `identifier` of the
connection. Whether the certificate bears the signer's name besides is for the CA's own set-up, and the SAM refuses one
that does not. Nor is control of a domain proved here: the CA takes the account, bound to one of its own (external
account binding), for the proof, and challenges are only told to begin.

The order's address is durable before anything is finalized, and every step looks at the order as it is: nothing that
breaks off makes a second certificate.
"""

import asyncio
import base64
import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from cryptography import x509
from pydantic import StringConstraints, model_validator

from services.ca_connector.answers import look, words
from services.ca_connector.authorities import Capabilities, Health, Surroundings
from services.ca_connector.authorities.acme_account import Account, Binding, Problem, location, read_json
from services.ca_connector.certificates import chain_for, read_certificates
from services.ca_connector.client import Answer, Peer
from services.ca_connector.orders import Issued, Order, Outcome, Pending, Refused
from shared.errors import Code, RakkanError
from shared.registry import CertificationAuthority
from shared.registry.model import PEM, URL, Entry, Label, SecretName

PROTOCOL = "acme"
_CERTIFICATES = "application/pem-certificate-chain"
_LOOKS = 8
_PAUSE_S = 0.25
"""Between two looks at an order that moves by itself; what takes longer is polled for."""
_IDENTIFIERS_MAX = 20
_CHAINS_MAX = 5
_LINK = re.compile(r"<([^<>\s]+)>([^<]*)")
_UNSPECIFIED = 0
"""For a CA that does not take every reason: revoked without it is better than not."""
_OVER = frozenset({"accountDoesNotExist", "malformed", "orderNotReady"})
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]


class Connection(Entry):
    directory: URL
    account_key: SecretName
    """PEM: P-256, P-384, P-521, Ed25519 or RSA."""
    contacts: tuple[Label, ...] = ()
    """URLs such as `mailto:ra@example.jp`."""
    binding_key_id: Label | None = None
    binding_key: SecretName | None = None
    identifier: Name | None = None
    """The domain to order for where a request names none: for a CA that compares no names."""
    challenge: Literal["http-01", "dns-01", "tls-alpn-01"] = "http-01"
    """Which one is told to begin where the CA wants one."""
    tls_anchors: tuple[PEM, ...] = ()
    client_certificate: SecretName | None = None

    @model_validator(mode="after")
    def _binding_is_whole(self) -> Self:
        if (self.binding_key_id is None) != (self.binding_key is None):
            raise ValueError("binding_key_id goes with binding_key")
        return self


def open(ca: CertificationAuthority, connection: Connection, surroundings: Surroundings) -> "ACME":  # noqa: A001 - the name all adapters have
    files, certificate = surroundings.secrets, connection.client_certificate
    peer = Peer.open(
        connection.directory,
        timeout_s=ca.timeout_s,
        connections_max=ca.concurrency_max,
        tls_anchors=connection.tls_anchors,
        client_certificate=None if certificate is None else files.secret_file(certificate),
    )
    binding = None
    if connection.binding_key_id is not None and connection.binding_key is not None:
        binding = Binding(connection.binding_key_id, files.secret(connection.binding_key))
    account = Account(
        peer,
        directory=connection.directory,
        key_pem=files.secret(connection.account_key),
        contacts=connection.contacts,
        binding=binding,
    )
    return ACME(ca, connection, peer=peer, account=account, now=surroundings.now)


class ACME:
    capabilities = Capabilities(polls=True, revokes=True, renews=False, repeatable=True)

    def __init__(
        self,
        ca: CertificationAuthority,
        connection: Connection,
        *,
        peer: Peer,
        account: Account,
        now: Callable[[], datetime],
    ) -> None:
        self.ca = ca
        self.connection = connection
        self.peer = peer
        self.account = account
        self.now = now

    async def submit(self, order: Order) -> Outcome:
        """Only newOrder: until it is finalized nothing is issued, so that this may be done twice."""
        identifiers = _identifiers(x509.load_der_x509_csr(order.csr), self.connection.identifier)
        if not identifiers:
            return Refused("ACME orders for domains and addresses, and neither request nor registry names one")
        wish: dict[str, Any] = {"identifiers": identifiers}
        profile = self.ca.profiles[order.profile].ca_profile
        if profile is not None:
            wish["profile"] = profile
        answer = await self.account.ask(await self.account.url_of("newOrder"), wish)
        if isinstance(answer, Problem):
            answer.raise_unless_about_the_request()
            return Refused(str(answer))
        return Pending(location(answer).encode(), self.now())

    async def poll(self, order: Order) -> Outcome:
        """On with the order from wherever it stands, as far as it goes by itself."""
        if order.handle is None:
            raise RakkanError(Code.INDETERMINATE, f"the address of order {order.order_id} is lost")
        url, later = order.handle.decode("ascii", "replace"), None
        for _ in range(_LOOKS):
            answer = await self.account.ask(url)
            if isinstance(answer, Problem):
                answer.raise_unless_about_the_request()
                raise RakkanError(Code.INDETERMINATE, f"the CA does not know the order any more: {answer}")
            document = read_json(answer)
            later = answer.retry_after(self.now())
            outcome = await self._advance(order, document)
            if outcome is not None:
                return outcome
            await asyncio.sleep(_PAUSE_S)
        return Pending(order.handle, later)

    async def confirm(self, order: Order, *, accepted: bool) -> None:
        """It waits for no word of ours."""

    async def revoke(self, order: Order, *, reason: int, at: datetime) -> None:  # noqa: ARG002 - the CA takes its own time
        url = await self.account.url_of("revokeCert")
        wish = {"certificate": _base64url(order.chain[0]), "reason": reason}
        answer = await self.account.ask(url, wish)
        if isinstance(answer, Problem) and answer.kind == "badRevocationReason":
            answer = await self.account.ask(url, {**wish, "reason": _UNSPECIFIED})
        if isinstance(answer, Problem) and answer.kind != "alreadyRevoked":
            answer.raise_unless_about_the_request()
            raise RakkanError(Code.AUTHORITY_REFUSED, f"not revoked: {answer}")

    async def check(self) -> Health:
        """Whether the account is good. A chain ACME tells only with a certificate."""
        await self.account.open()
        return Health()

    async def close(self) -> None:
        await self.peer.close()

    async def _advance(self, order: Order, document: dict[str, Any]) -> Outcome | None:
        """The next step of an order in this state; nothing while it goes on by itself."""
        status = document.get("status")
        if status == "valid":
            return await self._download(order, _url_in(document, "certificate"))
        if status == "invalid":
            return Refused(await self._why(document))
        if status == "pending":
            for url in _urls_in(document, "authorizations"):
                await self._begin(url)
        elif status == "ready":
            csr = {"csr": _base64url(order.csr)}
            answer = await self.account.ask(_url_in(document, "finalize"), csr)
            if isinstance(answer, Problem) and answer.kind not in _OVER:
                if answer.kind != "unauthorized":  # the order was just read by this account: so it is about the request
                    answer.raise_unless_about_the_request()
                return Refused(str(answer))
        elif status != "processing":
            raise RakkanError(Code.AUTHORITY_UNTRUSTED, f"an order that is {words(status)}")
        return None

    async def _begin(self, url: str) -> None:
        """Tell the CA that it may look at a challenge. One that is under way or over is left alone."""
        authorization = await self._read(url)
        if authorization.get("status") != "pending":
            return
        offered = [one for one in authorization.get("challenges") or () if isinstance(one, dict)]
        wanted = [one for one in offered if one.get("type") == self.connection.challenge] or offered
        if not wanted:
            raise RakkanError(Code.AUTHORITY_UNTRUSTED, "an authorization without challenges")
        if wanted[0].get("status") == "pending":
            answer = await self.account.ask(_url_in(wanted[0], "url"), {})
            if isinstance(answer, Problem) and answer.kind not in _OVER:
                answer.raise_unless_about_the_request()
                raise RakkanError(Code.AUTHORITY_UNTRUSTED, f"a challenge that may not begin: {answer}")

    async def _read(self, url: str) -> dict[str, Any]:
        answer = await self.account.ask(url)
        if isinstance(answer, Problem):
            answer.raise_unless_about_the_request()
            raise RakkanError(Code.AUTHORITY_UNTRUSTED, str(answer))
        return read_json(answer)

    async def _why(self, document: dict[str, Any]) -> str:
        """Why an order is invalid: it says so, or one of its authorizations does (RFC 8555 7.1.3)."""
        if isinstance(document.get("error"), dict):
            return str(Problem.of(document["error"]))
        for url in _urls_in(document, "authorizations"):
            for one in (await self._read(url)).get("challenges") or ():
                error = look(one, "/error")
                if isinstance(error, dict):
                    return str(Problem.of(error))
        return "the CA holds the order for invalid and does not say why"

    async def _download(self, order: Order, url: str) -> Outcome:
        """The chain that leads to our anchors; the CA's first one when none does (RFC 8555 7.4.2)."""
        chain, others = await self._chain(order, url)
        if not self._is_anchored(chain):
            for other in others[:_CHAINS_MAX]:
                alternate, _ = await self._chain(order, other)
                if self._is_anchored(alternate):
                    return Issued(alternate)
        return Issued(chain)

    async def _chain(self, order: Order, url: str) -> tuple[tuple[bytes, ...], list[str]]:
        answer = await self.account.ask(url)
        if isinstance(answer, Problem):
            answer.raise_unless_about_the_request()
            raise RakkanError(Code.AUTHORITY_UNTRUSTED, f"a certificate that is not given out: {answer}")
        if answer.content_type != _CERTIFICATES:
            raise RakkanError(Code.AUTHORITY_UNTRUSTED, f"a certificate of the type {answer.content_type[:60]!r}")
        certificates = read_certificates(answer.body)
        return chain_for(order.csr, certificates, more=self.ca.intermediate_certificates), _alternates(answer)

    def _is_anchored(self, chain: tuple[bytes, ...]) -> bool:
        """By name: which of several chains to hand on. Whether it holds is the SAM's to judge."""
        last = x509.load_der_x509_certificate(chain[-1])
        return any(last == one or last.issuer == one.subject for one in self.ca.anchor_certificates)


def _identifiers(request: x509.CertificateSigningRequest, fallback: str | None) -> list[dict[str, str]]:
    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return [] if fallback is None else [{"type": "dns", "value": fallback}]
    found = [("dns", one) for one in names.get_values_for_type(x509.DNSName)]
    found += [("ip", str(one)) for one in names.get_values_for_type(x509.IPAddress)]
    found += [("email", one) for one in names.get_values_for_type(x509.RFC822Name)]  # RFC 8823
    return [{"type": kind, "value": value} for kind, value in found[:_IDENTIFIERS_MAX]]


def _url_in(document: dict[str, Any], name: str) -> str:
    found = document.get(name)
    if not isinstance(found, str) or "://" not in found:
        raise RakkanError(Code.AUTHORITY_UNTRUSTED, f"an object without the address of its {name}")
    return found


def _urls_in(document: dict[str, Any], name: str) -> list[str]:
    found = document.get(name)
    if not isinstance(found, list) or not all(isinstance(one, str) and "://" in one for one in found):
        raise RakkanError(Code.AUTHORITY_UNTRUSTED, f"an object without the addresses of its {name}")
    return found[:_IDENTIFIERS_MAX]


def _alternates(answer: Answer) -> list[str]:
    links = _LINK.findall(answer.headers.get("link", ""))
    return [url for url, parameters in links if re.search(r'rel="?alternate"?', parameters)]


def _base64url(der: bytes) -> str:
    return base64.urlsafe_b64encode(der).rstrip(b"=").decode()
