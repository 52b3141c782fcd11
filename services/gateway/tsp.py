"""RFC 3161 at the plain endpoint: what a query asks, and how it is granted or rejected. Rules only, no I/O.

asn1crypto parses lazily and every access can raise; here is the one place where it may.
"""

from collections.abc import Mapping

from asn1crypto import core, tsp

from services.gateway.csc.model import Timestamp
from services.gateway.csc.reading import NONCE_BYTES_MAX
from shared.algorithms import HASH_BY_OID
from shared.errors import Code

QUERY = "application/timestamp-query"
REPLY = "application/timestamp-reply"

BAD_ALG = 0
BAD_REQUEST = 2
BAD_DATA_FORMAT = 5
TIME_NOT_AVAILABLE = 14
UNACCEPTED_POLICY = 15
UNACCEPTED_EXTENSION = 16
SYSTEM_FAILURE = 25
"""Bits of PKIFailureInfo (RFC 3161 2.4.2)."""

_FAILURES: Mapping[Code, tuple[int, str]] = {
    Code.HASH_ALGORITHM_REFUSED: (BAD_ALG, "no time-stamping authority here takes this hash"),
    Code.DIGEST_LENGTH: (BAD_DATA_FORMAT, "the imprint has not the length of its hash"),
    Code.TSA_REFUSED: (BAD_REQUEST, "the time-stamping authority refused the request"),
    Code.TSA_POLICY_REFUSED: (UNACCEPTED_POLICY, "no time-stamping authority here stamps under this policy"),
    Code.TSA_UNAVAILABLE: (TIME_NOT_AVAILABLE, "no time-stamping authority of this service answers now"),
    Code.TSA_QUOTA: (TIME_NOT_AVAILABLE, "the time-stamping authorities have no quota left now"),
}
_OTHERWISE = (SYSTEM_FAILURE, "a fault of the service; the same query may be sent again")
_UNREADABLE = (ValueError, TypeError, KeyError, IndexError, OverflowError, AttributeError, RecursionError)
_POLICY_BYTES_MAX = 32
_GRANTED = 0
_REJECTION = 2


class RejectionError(Exception):
    """A query that is answered with a rejection before any TSA is asked."""

    def __init__(self, failure: int, text: str) -> None:
        super().__init__(text)
        self.failure = failure
        self.text = text


def read_query(body: bytes) -> Timestamp:
    """What a TimeStampReq asks (RFC 3161 2.4.1); RejectionError when it is none, or asks what nobody grants."""
    try:
        return _query(tsp.TimeStampReq.load(body, strict=True))
    except _UNREADABLE:
        raise RejectionError(BAD_DATA_FORMAT, "this is no TimeStampReq") from None


def _query(query: tsp.TimeStampReq) -> Timestamp:
    if int(query["version"]) != 1:
        raise RejectionError(BAD_REQUEST, "version 1, please")
    imprint = query["message_imprint"]
    algorithm = imprint["hash_algorithm"]
    hash_ = HASH_BY_OID.get(algorithm["algorithm"].dotted)
    if hash_ is None:
        raise RejectionError(BAD_ALG, "SHA-2 and SHA-3 of 256 bits and more, please")
    algorithm["parameters"].native  # noqa: B018 - to have it parsed: asn1crypto takes NULL and nothing else here
    digest = bytes(imprint["hashed_message"].native)
    if len(digest) != hash_.digest_bytes:
        raise RejectionError(BAD_DATA_FORMAT, "the imprint has not the length of its hash")
    if not isinstance(query["extensions"], core.Void):
        raise RejectionError(UNACCEPTED_EXTENSION, "no extension is known here")
    policy = query["req_policy"]
    if not isinstance(policy, core.Void) and len(policy.contents) > _POLICY_BYTES_MAX:
        raise RejectionError(UNACCEPTED_POLICY, "no policy here has so long a name")
    return Timestamp(
        digest=digest,
        hash=hash_,
        nonce=_nonce(query["nonce"]),
        policy=None if isinstance(policy, core.Void) else policy.dotted,
        certificate_requested=query["cert_req"].native,
    )


def _nonce(nonce: core.Integer | core.Void) -> bytes | None:
    if isinstance(nonce, core.Void):
        return None
    # RFC 3161 sets no limit. Looked at before it becomes a number; one more byte than the value may hold its sign.
    if len(nonce.contents) > NONCE_BYTES_MAX + 1:
        raise RejectionError(BAD_REQUEST, f"a nonce of at most {NONCE_BYTES_MAX} bytes, please")
    number: int = nonce.native
    if number < 0 or number.bit_length() > 8 * NONCE_BYTES_MAX:
        raise RejectionError(BAD_REQUEST, f"a nonce of at most {NONCE_BYTES_MAX} bytes and not negative, please")
    return number.to_bytes(max(1, (number.bit_length() + 7) // 8), "big")


def granted(token: bytes) -> bytes:
    """A TimeStampResp around a token."""
    return _reply(tsp.PKIStatusInfo({"status": _GRANTED}), token)


def rejected(failure: int, text: str) -> bytes:
    """A TimeStampResp that says no, why in one bit, and why in words."""
    # DER wants a named bit list without zeros at its end (X.690 11.2.2).
    bits = core.BitString((*(0,) * failure, 1))
    info = tsp.PKIStatusInfo({"status": _REJECTION, "status_string": [text]})
    info["fail_info"] = tsp.PKIFailureInfo.load(bits.dump())
    return _reply(info)


def _reply(status: tsp.PKIStatusInfo, token: bytes = b"") -> bytes:
    # asn1crypto's TimeStampResp demands a token, and a rejection has none; a token goes out in the bytes it came in.
    return bytes(core.Sequence(contents=status.dump() + token).dump())


def failure_of(code: Code) -> tuple[int, str]:
    """The bit and the words for a refusal of another room."""
    return _FAILURES.get(code, _OTHERWISE)
