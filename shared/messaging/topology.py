"""The one table of who may say what to whom, and the broker objects that follow from it. Knows no transport.

RabbitMQ's definitions (users, permissions, exchanges, queues) are printed from it by `python -m deploy.rabbitmq`;
no service declares anything but its own reply queue.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from shared.contracts import approval, authentication, batches, ca_connector, issuance, sam, svg, tsa_connector
from shared.contracts.base import Job, Message
from shared.errors import Code, RakkanError

MESSAGE_BYTES_MAX = 262_144
QUEUE_MESSAGES_MAX = 10_000
DELIVERIES_MAX = 20
REPLIES = "replies"
DEAD_LETTERS = "dead_letters"

ROOMS = ("gateway", "authentication", "sam", "svg", "ca_connector", "tsa_connector")
OPERATOR = "operator"
SENDERS = (*ROOMS, OPERATOR)


@dataclass(frozen=True, slots=True)
class Route:
    """One type of message: who may send it, how long a request may wait, whether it may be sent again unanswered."""

    message: type[Message]
    callers: frozenset[str]
    timeout_s: float = 10.0
    repeatable: bool = True
    """Asking again has no second effect, so an ask outlives a restart of the broker. Not so where a try is charged."""

    @property
    def listener(self) -> str:
        return self.message.TYPE.split(".", 1)[0]

    @property
    def is_job(self) -> bool:
        return issubclass(self.message, Job)

    @property
    def queue(self) -> str:
        return f"{self.listener}.{'jobs' if self.is_job else 'requests'}"


def _route(message: type[Message], *callers: str, timeout_s: float = 10.0, repeatable: bool = True) -> Route:
    return Route(message, frozenset(callers), timeout_s, repeatable)


ROUTES = {
    route.message.TYPE: route
    for route in (
        _route(sam.ListCredentials, "gateway"),
        _route(sam.DescribeCredential, "gateway"),
        _route(sam.CheckFactor, "gateway"),
        _route(sam.Authorize, "gateway", repeatable=False),
        _route(sam.ExtendAuthorization, "gateway", repeatable=False),
        _route(sam.SignHash, "gateway", timeout_s=20.0),
        _route(issuance.CreateCredential, "gateway"),
        _route(issuance.CheckIssuance, "gateway"),
        _route(issuance.RemoveCredential, "gateway"),
        _route(issuance.StopCredential, "gateway"),
        _route(issuance.RenewCredential, "gateway", timeout_s=20.0),
        _route(issuance.ReadRequest, "gateway"),
        _route(issuance.InstallCertificate, "gateway"),
        _route(issuance.PrepareOnce, "authentication"),
        _route(sam.RevokeTokens, "authentication"),
        _route(approval.ListApprovable, "authentication"),
        _route(approval.OpenContext, "authentication"),
        _route(approval.ApproveContext, "authentication"),
        _route(approval.RefuseContext, "authentication"),
        _route(approval.OpenLogin, "authentication"),
        _route(approval.VerifyLogin, "authentication", repeatable=False),
        _route(approval.OpenEnrollment, "authentication"),
        _route(approval.AddAuthenticator, "authentication", repeatable=False),
        _route(approval.ReadOverview, "authentication", OPERATOR),
        _route(approval.RemoveAuthenticator, "authentication", OPERATOR),
        _route(approval.IssueTicket, OPERATOR, repeatable=False),
        _route(sam.AcceptCertificate, "ca_connector"),
        _route(sam.RefuseOrder, "ca_connector"),
        _route(sam.NoteCertificateStatus, "ca_connector"),
        _route(sam.PrepareCredential, "sam"),
        _route(sam.EndCredential, "sam"),
        _route(sam.AddSigner, OPERATOR, repeatable=False),
        _route(sam.AddCredential, OPERATOR),
        _route(sam.ListInventory, OPERATOR),
        _route(sam.SuspendCredential, OPERATOR),
        _route(sam.UnlockSigner, OPERATOR),
        _route(sam.DeleteCredential, OPERATOR),
        _route(svg.SignDigests, "sam", timeout_s=15.0),
        _route(svg.GenerateKey, "sam", timeout_s=30.0),
        _route(svg.DestroyKey, "sam"),
        _route(ca_connector.OrderCertificate, "sam"),
        _route(ca_connector.ConfirmOrder, "sam"),
        _route(ca_connector.NoteCertificate, "sam"),
        _route(ca_connector.RevokeCertificate, "sam"),
        _route(ca_connector.ListAuthorities, OPERATOR, timeout_s=15.0),
        _route(ca_connector.ListOrders, OPERATOR),
        _route(ca_connector.ResolveOrder, OPERATOR),
        _route(ca_connector.NoteRevoked, OPERATOR),
        _route(batches.ExportRequests, OPERATOR),
        _route(batches.ImportCertificates, OPERATOR),
        _route(tsa_connector.Timestamp, "gateway", timeout_s=15.0),
        _route(tsa_connector.ReadAuthorities, OPERATOR),
        _route(tsa_connector.ExplainTimestamp, OPERATOR),
        _route(authentication.CheckToken, "gateway"),
        _route(authentication.AddTenant, OPERATOR),
        _route(authentication.AddClient, OPERATOR, repeatable=False),
        _route(authentication.ListAccounts, OPERATOR),
        _route(authentication.SetNoticeAddress, OPERATOR),
        _route(authentication.NoticeAuthenticator, "sam"),
        _route(authentication.SuspendClient, OPERATOR),
        _route(authentication.SuspendTenant, OPERATOR),
    )
}

PREFETCH = {"sam": 32, "svg": 4, "ca_connector": 8, "tsa_connector": 64, "authentication": 16}
"""Messages in hand at once in one process of a listener, for each of its queues."""

LISTENERS = tuple(dict.fromkeys(route.listener for route in ROUTES.values()))


def route_of(type_: str) -> Route:
    """The route of a message type, FORBIDDEN when there is none."""
    try:
        return ROUTES[type_]
    except KeyError:
        raise RakkanError(Code.FORBIDDEN, "no such route") from None


def queues_of(listener: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(route.queue for route in ROUTES.values() if route.listener == listener))


def reply_queue(sender: str, instance: str) -> str:
    return f"{sender}.replies.{instance}"


def listeners_of(sender: str) -> tuple[str, ...]:
    """The listeners a sender may address."""
    return tuple(dict.fromkeys(r.listener for r in ROUTES.values() if sender in r.callers))


def callers_of(listener: str) -> tuple[str, ...]:
    """The senders that wait for answers of a listener."""
    routes = (r for r in ROUTES.values() if r.listener == listener and not r.is_job)
    return tuple(sorted({caller for route in routes for caller in route.callers}))


def permissions(sender: str) -> dict[str, str]:
    """RabbitMQ's configure, write and read patterns: the least that the sender's routes need."""
    own_replies = rf"{sender}\.replies\.[0-9a-f]+"
    write = [own_replies, *listeners_of(sender)] + ([REPLIES] if callers_of(sender) else [])
    read = [own_replies, REPLIES, *(queue.replace(".", r"\.") for queue in queues_of(sender))]
    return {"configure": _pattern([own_replies]), "write": _pattern(write), "read": _pattern(read)}


def topic_permissions(sender: str) -> dict[str, str]:
    """On the `replies` exchange: bind only one's own replies, write only to those who may ask."""
    callers = callers_of(sender)
    write = [rf"{caller}\.replies\.[0-9a-f]+" for caller in callers]
    return {"write": _pattern(write) if write else "^$", "read": _pattern([rf"{sender}\.replies\.[0-9a-f]+"])}


def _pattern(alternatives: Iterable[str]) -> str:
    return f"^({'|'.join(alternatives)})$"
