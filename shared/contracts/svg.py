"""What the SVG does: values made in the HSM, on a signed activation and on nothing else."""

from typing import ClassVar

from pydantic import Field

from shared.algorithms import KeyAlgorithm
from shared.contracts.base import Reply, Request, Sealed


class SignatureValues(Reply):
    """One value for each digest of the activation, in its order. ECDSA as DER ECDSA-Sig-Value."""

    values: tuple[bytes, ...]


class SignDigests(Request[SignatureValues]):
    """Use a key as the activation says (purpose `sign` or `csr`).

    Refused with ACTIVATION_REFUSED, ACTIVATION_SPENT, INDETERMINATE, KEY_UNKNOWN, KEY_DAMAGED, HSM_UNAVAILABLE,
    DIGEST_LENGTH, SIGN_ALGORITHM_REFUSED, SIGN_PARAMETERS_REFUSED. The same activation again gives the same values.
    """

    TYPE: ClassVar[str] = "svg.sign_digests.v1"
    REPLY: ClassVar[type[Reply]] = SignatureValues

    activation: bytes = Field(max_length=150_000)
    """A `shared.activation` token of the SAM."""
    share: Sealed
    """The key's share, sealed to the SVG for this activation."""


class KeyGenerated(Reply):
    key_id: str
    algorithm: KeyAlgorithm
    public_key: bytes
    """DER SubjectPublicKeyInfo."""


class GenerateKey(Request[KeyGenerated]):
    """Make a key under the activation (purpose `generate`). The same activation again names the same key."""

    TYPE: ClassVar[str] = "svg.generate_key.v1"
    REPLY: ClassVar[type[Reply]] = KeyGenerated

    activation: bytes = Field(max_length=16_384)
    share: Sealed


class KeyDestroyed(Reply):
    """The record of a destruction, for the log of who wanted it."""

    key_id: str = ""
    public_key_hash: bytes = b""
    """Of the key that is gone."""
    audit_reference: str = ""
    """The operation under which the SVG's own log has `key.destroyed`."""


class DestroyKey(Request[KeyDestroyed]):
    """Destroy the wrapped key under the activation (purpose `destroy`). Destroying twice is one destruction."""

    TYPE: ClassVar[str] = "svg.destroy_key.v1"
    REPLY: ClassVar[type[Reply]] = KeyDestroyed

    activation: bytes = Field(max_length=16_384)
