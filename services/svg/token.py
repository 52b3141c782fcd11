"""What the SVG does in its HSM token: generate, wrap, sign and destroy the keys of signers. Knows no database."""

from dataclasses import replace

from services.svg.checks import Key
from services.svg.wrapping import (
    KeyAttributes,
    NewKey,
    Wrapped,
    close_envelope,
    open_envelope,
    outer_secret_input,
)
from shared.algorithms import KeyAlgorithm, SignatureAlgorithm
from shared.errors import Code, RakkanError
from shared.hsm import Session, Token
from shared.verification import verify_all

OUTER_SECRET = "svg-outer"  # noqa: S105  # the label of a key in the token
_RESIDENT = b"R"


class SVGToken:
    """The token with the KEK and the secret of the outer envelopes."""

    def __init__(self, token: Token, *, kek: str) -> None:
        self._token = token
        self._kek = kek

    @property
    def serial(self) -> str:
        return self._token.serial

    async def probe(self) -> None:
        """Raise HSM_UNAVAILABLE or KEY_UNKNOWN unless keys can be made and opened."""
        await self._token.run(lambda session: session.require(self._kek, OUTER_SECRET))
        await self._token.probe()

    async def generate(self, algorithm: KeyAlgorithm) -> NewKey:
        public_key, inner = await self._token.generate_wrapped(algorithm, kek=self._kek)
        return NewKey(public_key, inner, self._kek)

    async def assign(self, new: NewKey, attributes: KeyAttributes, share: bytes) -> Wrapped:
        """Bind a new key to its attributes and its share, for ever."""
        secret = await self._token.mac(OUTER_SECRET, outer_secret_input(attributes.key_id))
        wrapped = close_envelope(new.inner, replace(attributes, kek=new.kek), secret=secret, share=share)
        return Wrapped(wrapped, new.inner if new.inner[:1] == _RESIDENT else None)

    async def sign(
        self, key: Key, share: bytes, algorithm: SignatureAlgorithm, digests: tuple[bytes, ...]
    ) -> tuple[bytes, ...]:
        """One verified value for each digest. One job: a hand-over to the thread costs more than a P-256 signature."""
        attributes, wrapped = key.attributes, key.wrapped
        if wrapped is None:
            raise RakkanError(Code.KEY_UNKNOWN, "destroyed")

        def job(session: Session) -> tuple[bytes, ...]:
            secret = session.mac(OUTER_SECRET, outer_secret_input(attributes.key_id))
            inner = open_envelope(wrapped, attributes, secret=secret, share=share)
            values = session.sign_wrapped(attributes.kek, inner, attributes.key_algorithm, algorithm, digests)
            verify_all(key.public_key, algorithm, digests, values)
            return values

        return await self._token.run(job)

    async def destroy(self, resident: bytes) -> None:
        """Destroy the object of a key that stayed in the token."""
        await self._token.run(lambda session: session.destroy_wrapped(resident))
