"""Whether an authorization covers what is asked, and which occurrences that spends. Rules only, no I/O."""

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

from services.sam.rows import PASSKEY, Authorization, Credential, State
from shared.algorithms import Hash, SignatureAlgorithm, check_algorithm, check_digest, check_key_allowed
from shared.errors import Code, RakkanError

_DIGEST_BYTES = frozenset(hash_.digest_bytes for hash_ in Hash)


@dataclass(frozen=True, slots=True)
class AuthorizedHash:
    """One occurrence of a digest that the signer authorized."""

    occurrence: int
    digest: bytes
    hash: Hash | None
    operation_id: str | None


def check_usable(credential: Credential, *, now: datetime) -> None:
    """Raise unless this credential may be used now: active, certificate valid and in date, algorithm allowed."""
    if credential.not_after is not None and now >= credential.not_after and credential.ending in ("", "expired"):
        raise RakkanError(Code.CERTIFICATE_EXPIRED)
    if credential.state is not State.ACTIVE or not credential.chain or credential.not_after is None:
        raise RakkanError(Code.CREDENTIAL_DISABLED, f"the credential is {credential.state}")
    if credential.certificate_status != "valid":
        raise RakkanError(Code.CREDENTIAL_DISABLED, f"the certificate is {credential.certificate_status}")
    check_key_allowed(credential.key_algorithm, credential.profile, now=now)


def check_by_factors(credential: Credential) -> None:
    """ASSURANCE_REFUSED when this credential is approved by passkey only: no PIN opens it (CSC 11.6)."""
    if credential.assurance == PASSKEY:
        raise RakkanError(Code.ASSURANCE_REFUSED, "its signer approves on the page of authentication")


def check_by_approval(credential: Credential) -> None:
    """ASSURANCE_REFUSED when this credential is not one that is approved by passkey."""
    if credential.assurance != PASSKEY:
        raise RakkanError(Code.ASSURANCE_REFUSED, f"the credential is {credential.assurance}")


def check_wish(
    credential: Credential, *, signatures: int, digests: tuple[bytes, ...] | None, hash_: Hash | None
) -> None:
    """Raise unless an authorization of so many signatures, over these digests, may be asked for (CSC 11.6)."""
    if not 1 <= signatures <= credential.signatures_max:
        raise RakkanError(Code.TOO_MANY_SIGNATURES, f"1 to {credential.signatures_max} at once")
    if digests is None:
        if credential.hashes_required:
            raise RakkanError(Code.HASHES_REQUIRED, "this credential links every authorization to its hashes")
        return
    if len(digests) > signatures:
        raise RakkanError(Code.TOO_MANY_SIGNATURES, f"{len(digests)} hashes for {signatures} signatures")
    for digest in digests:
        if len(digest) not in ({hash_.digest_bytes} if hash_ else _DIGEST_BYTES):
            raise RakkanError(Code.DIGEST_LENGTH, f"{len(digest)} bytes for {hash_ or 'any hash'}")


def request_id_of(credential: Credential, asked_by: str) -> str:
    """What an authorization is unique by: its request, or the credential that was made for one and has only one."""
    return f"once:{credential.credential_id}" if credential.one_time else asked_by


def check_extendable(credential: Credential) -> None:
    """SAD_INVALID for a credential that was made for one authorization: it has had it."""
    if credential.one_time:
        raise RakkanError(Code.SAD_INVALID, "of a credential that was made for one authorization")


def listed(digests: tuple[bytes, ...], hash_: Hash | None) -> tuple[AuthorizedHash, ...]:
    """One occurrence for each, in their order."""
    return tuple(AuthorizedHash(index, digest, hash_, None) for index, digest in enumerate(digests))


def set_hash(hashes: tuple[AuthorizedHash, ...]) -> bytes:
    """What an authorization is sealed with of its hashes."""
    state = hashlib.sha256()
    for entry in hashes:
        state.update(f"{entry.occurrence}|{entry.hash or ''}|{entry.digest.hex()}\n".encode())
    return state.digest()


def check_sad(
    authorization: Authorization | None, *, credential_id: str, client_id: str, epoch: int, now: datetime
) -> Authorization:
    """The authorization, or SAD_INVALID unless it is this client's for this credential; SAD_EXPIRED when it was."""
    if (
        authorization is None
        or authorization.credential_id != credential_id
        or authorization.client_id != client_id
        or authorization.epoch != epoch
    ):
        raise RakkanError(Code.SAD_INVALID)
    if now >= authorization.expires_at:
        raise RakkanError(Code.SAD_EXPIRED)
    return authorization


def check_request(credential: Credential, algorithm: SignatureAlgorithm, digests: tuple[bytes, ...]) -> None:
    """Raise unless the credential's key can sign these digests by this algorithm."""
    check_algorithm(credential.key_algorithm, algorithm)
    for digest in digests:
        check_digest(algorithm, digest)
    if len(digests) > credential.signatures_max:
        raise RakkanError(Code.TOO_MANY_SIGNATURES, f"at most {credential.signatures_max} at once")


def operation_id(authorization_id: str, algorithm: SignatureAlgorithm, digests: tuple[bytes, ...]) -> str:
    """The name of one signing: the same SAD, algorithm and digests again are the same signing, not a second one."""
    state = hashlib.sha256(f"{authorization_id}|{algorithm.scheme}|{algorithm.hash}|{algorithm.salt_bytes}".encode())
    for digest in digests:
        state.update(len(digest).to_bytes(4, "big") + digest)
    return state.hexdigest()[:40]


def occurrences_to_spend(
    authorization: Authorization,
    authorized: tuple[AuthorizedHash, ...],
    digests: tuple[bytes, ...],
    *,
    hash_: Hash,
) -> tuple[int, ...]:
    """Which occurrences these digests spend, one each, in their order.

    Without authorized hashes (CSC SCAL "1") the uses are counted. HASH_NOT_AUTHORIZED when a digest is not on the list
    or was spent as often as it stands there; SAD_INVALID when the authorization is used up or replaced.
    """
    if authorization.replaced:
        raise RakkanError(Code.SAD_INVALID, "replaced by an extended one")
    if not authorization.bound:
        if authorization.used + len(digests) > authorization.signatures:
            raise RakkanError(Code.SAD_INVALID, "used up")
        return tuple(range(authorization.used, authorization.used + len(digests)))
    free: dict[bytes, list[int]] = defaultdict(list)
    for entry in reversed(authorized):
        if entry.operation_id is None and entry.hash in (None, hash_):
            free[entry.digest].append(entry.occurrence)
    try:
        return tuple(free[digest].pop() for digest in digests)
    except IndexError:
        raise RakkanError(Code.HASH_NOT_AUTHORIZED) from None
