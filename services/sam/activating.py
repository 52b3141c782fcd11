"""Makes activations: the one thing the SVG obeys. Knows the SAM's activation key and how shares are kept."""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from services.sam.rows import Authorization, Credential, RowSeal, Signer
from shared.activation import Activation, Use, sign_activation
from shared.algorithms import SignatureAlgorithm
from shared.errors import Code, RakkanError
from shared.sealing import Secrets, seal
from shared.trust import SigningKey

_ADMINISTRATIVE = timedelta(seconds=60)


@dataclass(frozen=True)
class Activator:
    key: SigningKey
    seal: RowSeal
    svg_key: X25519PublicKey
    epoch: int
    now: Callable[[], datetime]

    def to_sign(
        self,
        credential: Credential,
        signer: Signer,
        authorization: Authorization,
        occurrences: tuple[int, ...],
        algorithm: SignatureAlgorithm,
        digests: tuple[bytes, ...],
        *,
        operation_id: str,
    ) -> bytes:
        """It holds as long as the authorization: a retry sends the very same bytes."""
        return self._activation(
            credential,
            signer,
            Use.SIGN,
            operation_id,
            expires_at=authorization.expires_at,
            authorization_id=authorization.authorization_id,
            occurrences=occurrences,
            algorithm=algorithm,
            digests=digests,
        )

    def for_request(
        self, credential: Credential, signer: Signer, algorithm: SignatureAlgorithm, to_be_signed: bytes
    ) -> tuple[str, bytes]:
        """Sign one certification request and nothing else."""
        operation_id = f"csr:{credential.key_id}:{sha256(to_be_signed).hexdigest()[:16]}"
        return operation_id, self._activation(
            credential, signer, Use.CSR, operation_id, algorithm=algorithm, digests=(to_be_signed,)
        )

    def to_generate(self, credential: Credential, signer: Signer) -> tuple[str, bytes]:
        operation_id = f"generate:{credential.key_id}"
        return operation_id, self._activation(credential, signer, Use.GENERATE, operation_id)

    def to_destroy(self, credential: Credential, signer: Signer) -> tuple[str, bytes]:
        operation_id = f"destroy:{credential.key_id}"
        return operation_id, self._activation(credential, signer, Use.DESTROY, operation_id)

    def new_share(self, key_id: str, share: bytes) -> bytes:
        """A share as it is kept in its row."""
        return self.seal.conceal(share, subject=key_id)

    def sealed_share(self, credential: Credential, *, message: str, operation_id: str) -> bytes:
        """The share on its way to the SVG, for this operation only. CREDENTIAL_DISABLED once it is gone."""
        if credential.share is None:
            raise RakkanError(Code.CREDENTIAL_DISABLED, "the key is destroyed")
        share = base64.b64encode(self.seal.reveal(credential.share, subject=credential.key_id)).decode()
        return seal(Secrets.of(share=share), to=self.svg_key, message=message, subject=operation_id)

    def _activation(
        self,
        credential: Credential,
        signer: Signer,
        use: Use,
        operation_id: str,
        *,
        expires_at: datetime | None = None,
        authorization_id: str | None = None,
        occurrences: tuple[int, ...] = (),
        algorithm: SignatureAlgorithm | None = None,
        digests: tuple[bytes, ...] = (),
    ) -> bytes:
        now = self.now()
        activation = Activation(
            epoch=self.epoch,
            use=use,
            operation_id=operation_id,
            key_id=credential.key_id,
            owner=f"{signer.tenant_id}/{signer.signer_id}",
            key_algorithm=credential.key_algorithm,
            profile=credential.profile,
            signatures_max=credential.signatures_max,
            public_key_hash=sha256(credential.public_key).digest() if credential.public_key else None,
            authorization_id=authorization_id,
            occurrences=occurrences,
            scheme=algorithm.scheme if algorithm else None,
            hash=algorithm.hash if algorithm else None,
            salt_bytes=algorithm.salt_bytes if algorithm else None,
            digests=digests,
            issued_at=now,
            expires_at=expires_at or now + _ADMINISTRATIVE,
        )
        return sign_activation(activation, self.key)
