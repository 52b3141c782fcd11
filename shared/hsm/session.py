"""One logged-in PKCS#11 session and the keys found in it. Synchronous: every method runs on the PKCS#11 thread.

Raises RakkanError for what the caller can act on; what remains of the library's exceptions is translated by `Token`.
"""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass

from shared.algorithms import Family, KeyAlgorithm, SignatureAlgorithm
from shared.errors import Code, RakkanError
from shared.hsm import signing, templates

_WRAPPED, _RESIDENT = b"W", b"R"
_RESIDENT_ID_BYTES = 16
_AES_BITS = 256
_MAC_KEY_BITS = 256
_MAC_BUFFER_BYTES = 64
_DAMAGED = (
    pkcs11.GeneralError,  # SoftHSM has no other word for it
    pkcs11.FunctionFailed,
    pkcs11.WrappedKeyInvalid,
    pkcs11.WrappedKeyLenRange,
    pkcs11.EncryptedDataInvalid,
    pkcs11.EncryptedDataLenRange,
    pkcs11.ArgumentsBad,
    pkcs11.DataInvalid,
)


class Session:
    """The token, open. Handles are looked up once: a search costs 10 us for every object of the token."""

    def __init__(self, module: Path, token_label: str, pin: str) -> None:
        self._mapper = templates.Mapper()
        self._library = pkcs11.lib(str(module))
        self._token = self._library.get_token(token_label=token_label)
        self._session = self._token.open(user_pin=pin, attribute_mapper=self._mapper)
        self._pin = pin
        self._keys: dict[tuple[ObjectClass, str | bytes], Any] = {}
        self._algorithms: dict[str, KeyAlgorithm] = {}
        self.serial = bytes(self._token.serial).decode("ascii", "replace").strip("\0 ")

    def close(self) -> None:
        """Log out and end the module: the next session starts it anew and sees tokens as they are then."""
        self._keys.clear()
        with suppress(pkcs11.PKCS11Error):
            self._session.close()
        with suppress(pkcs11.PKCS11Error):
            self._library.finalize()

    def probe(self) -> None:
        """Raise when the token or a key that was found in it is gone."""
        self._session.generate_random(8)
        self._token.slot.get_token()
        for (_, label), key in self._keys.items():
            if isinstance(label, str) and key[Attribute.LABEL] != label:
                raise RakkanError(Code.HSM_UNAVAILABLE, "a key of the token is another one now")

    def require(self, *labels: str) -> None:
        """KEY_UNKNOWN unless the token has these secret keys."""
        for label in labels:
            self._find(ObjectClass.SECRET_KEY, label)

    # Keys that stay in the token

    def mac(self, label: str, data: bytes) -> bytes:
        """HMAC-SHA-256 under a secret key of the token."""
        key = self._find(ObjectClass.SECRET_KEY, label)
        return bytes(key.sign(data, mechanism=Mechanism.SHA256_HMAC, buffer_size=_MAC_BUFFER_BYTES))

    def sign(self, label: str, algorithm: SignatureAlgorithm, digests: Sequence[bytes]) -> tuple[bytes, ...]:
        key = self._find(ObjectClass.PRIVATE_KEY, label)
        if label not in self._algorithms:
            self._algorithms[label] = signing.algorithm_of(key)
        return signing.sign_all(key, self._algorithms[label], algorithm, digests)

    def public_key(self, label: str) -> bytes:
        """DER SubjectPublicKeyInfo."""
        key = self._find(ObjectClass.PUBLIC_KEY, label)
        return signing.spki(key, signing.algorithm_of(key))

    # Keys that live outside, wrapped

    def generate_wrapped(self, kek: str, algorithm: KeyAlgorithm) -> tuple[bytes, bytes]:
        """A new key pair: DER SubjectPublicKeyInfo, and the private key wrapped by the KEK (RFC 5649).

        Where the module has no way to wrap a kind of key (SoftHSM 2.6: Ed25519), the key stays in the token, not
        extractable, and the second part names it.
        """
        public, private = self._generate(self._session, algorithm, templates.TO_BE_WRAPPED)
        try:
            wrapped = self._find(ObjectClass.SECRET_KEY, kek).wrap_key(private, mechanism=Mechanism.AES_KEY_WRAP_PAD)
            return signing.spki(public, algorithm), _WRAPPED + wrapped
        except pkcs11.KeyNotWrappable:
            if algorithm.family is not Family.ED25519:
                raise RakkanError(Code.HSM_UNAVAILABLE, f"{kek} is not trusted to wrap") from None
        finally:
            private.destroy()
            public.destroy()
        return self._generate_resident(algorithm)

    def sign_wrapped(
        self,
        kek: str,
        wrapped: bytes,
        key_algorithm: KeyAlgorithm,
        algorithm: SignatureAlgorithm,
        digests: Sequence[bytes],
    ) -> tuple[bytes, ...]:
        """Unwrap to a session object, sign all, destroy."""
        if wrapped[:1] == _RESIDENT:
            return signing.sign_all(self._resident(wrapped[1:]), key_algorithm, algorithm, digests)
        key = self._unwrap(kek, wrapped, key_algorithm)
        try:
            return signing.sign_all(key, key_algorithm, algorithm, digests)
        finally:
            key.destroy()

    def destroy_wrapped(self, wrapped: bytes) -> None:
        """Destroy what the token holds of a wrapped key: nothing, unless the key stayed there."""
        if wrapped[:1] == _RESIDENT:
            key_id = wrapped[1:]
            self._keys.pop((ObjectClass.PRIVATE_KEY, key_id), None)
            with self._writable() as session:
                for key in list(session.get_objects({Attribute.ID: key_id})):
                    key.destroy()

    # Ceremony

    def create_mac_key(self, label: str) -> bool:
        """Whether a key was created; an existing one is kept."""
        if self._exists(ObjectClass.SECRET_KEY, label):
            return False
        with self._writable() as session:
            session.generate_key(
                KeyType.GENERIC_SECRET,
                _MAC_KEY_BITS,
                label=label,
                store=True,
                capabilities=MechanismFlag.SIGN,
                mechanism=Mechanism.GENERIC_SECRET_KEY_GEN,
                template=self._mapper.checked(templates.MAC_KEY),
            )
        return True

    def create_signing_key(self, label: str, algorithm: KeyAlgorithm) -> bool:
        """Whether a key was created; an existing one is kept."""
        if self._exists(ObjectClass.PRIVATE_KEY, label):
            return False
        with self._writable() as session:
            self._generate(session, algorithm, templates.RESIDENT, label=label)
        return True

    def create_kek(self, label: str, so_pin: str) -> bool:
        """Whether a KEK was created; an existing trusted one is kept.

        PKCS#11 lets only the security officer make a trusted key, and SoftHSM lets him make no private one. So the
        officer makes it, the user takes a private copy (which stays trusted and encrypted at rest), the first one goes.
        """
        if self._exists(ObjectClass.SECRET_KEY, label):
            if not self._find(ObjectClass.SECRET_KEY, label)[Attribute.TRUSTED]:
                raise RakkanError(Code.HSM_UNAVAILABLE, f"{label} exists and is not trusted")
            return False
        draft = f"{label}-draft"
        self._keys.clear()
        self._session.close()  # the officer and the user cannot be logged in together
        try:
            officer = self._token.open(rw=True, so_pin=so_pin, attribute_mapper=self._mapper)
            try:
                self._destroy_all(officer, draft)
                self._generate_kek(officer, draft)
            finally:
                officer.close()
        finally:
            self._session = self._token.open(user_pin=self._pin, attribute_mapper=self._mapper)
        with self._writable() as session:
            made = session.get_key(object_class=ObjectClass.SECRET_KEY, label=draft)
            made.copy({Attribute.LABEL: label, Attribute.PRIVATE: True, Attribute.MODIFIABLE: False})
            self._destroy_all(session, draft)
        self.prove_kek(label)
        return True

    def prove_kek(self, label: str) -> None:
        """Raise unless the HSM itself refuses to unwrap under this KEK what is not as `templates.UNWRAPPED` says."""
        _, wrapped = self.generate_wrapped(label, KeyAlgorithm.P256)
        for attribute, value in ((Attribute.EXTRACTABLE, True), (Attribute.SENSITIVE, False), (Attribute.TOKEN, True)):
            try:
                self._unwrap(label, wrapped, KeyAlgorithm.P256, {attribute: value}).destroy()
            except (pkcs11.TemplateInconsistent, pkcs11.SessionReadOnly):
                continue
            raise RakkanError(Code.HSM_UNAVAILABLE, f"the module does not enforce the unwrap template of {label}")

    # Parts

    def _generate_kek(self, officer: Any, label: str) -> None:
        officer.generate_key(
            KeyType.AES,
            _AES_BITS,
            label=label,
            store=True,
            capabilities=MechanismFlag.WRAP | MechanismFlag.UNWRAP,
            mechanism=Mechanism.AES_KEY_GEN,
            template=self._mapper.checked({**templates.KEK, Attribute.PRIVATE: False}),
        )

    def _generate(
        self, session: Any, algorithm: KeyAlgorithm, private: templates.Template, **names: str | bytes
    ) -> tuple[Any, Any]:
        public, key = session._generate_keypair(  # noqa: SLF001  # the public method insists on domain parameters for curves
            templates.KEY_TYPES[algorithm.family],
            algorithm.bits if algorithm.family is Family.RSA else None,
            store=bool(names),
            capabilities=templates.CAPABILITIES_SIGN,
            mechanism=templates.GENERATE[algorithm.family],
            public_template=self._mapper.checked(templates.public_template(algorithm)),
            private_template=self._mapper.checked(private),
            **names,
        )
        return public, key

    def _generate_resident(self, algorithm: KeyAlgorithm) -> tuple[bytes, bytes]:
        key_id = secrets.token_bytes(_RESIDENT_ID_BYTES)
        with self._writable() as session:
            public, _ = self._generate(session, algorithm, templates.RESIDENT, id=key_id)
            return signing.spki(public, algorithm), _RESIDENT + key_id

    def _resident(self, key_id: bytes) -> Any:
        if len(key_id) != _RESIDENT_ID_BYTES:
            raise RakkanError(Code.KEY_DAMAGED, "no name of a key in the token")
        return self._find(ObjectClass.PRIVATE_KEY, key_id)

    def _unwrap(
        self, kek: str, wrapped: bytes, algorithm: KeyAlgorithm, changes: templates.Template | None = None
    ) -> Any:
        if wrapped[:1] != _WRAPPED:
            raise RakkanError(Code.KEY_DAMAGED, "not a wrapped key")
        unwrapping = self._find(ObjectClass.SECRET_KEY, kek)
        try:
            return unwrapping.unwrap_key(
                ObjectClass.PRIVATE_KEY,
                templates.KEY_TYPES[algorithm.family],
                wrapped[1:],
                mechanism=Mechanism.AES_KEY_WRAP_PAD,
                capabilities=MechanismFlag.SIGN,
                template=self._mapper.checked({**templates.UNWRAP_REQUEST, **(changes or {})}),
            )
        except _DAMAGED:
            self.probe()  # the same error when the token is gone: then this raises
            raise RakkanError(Code.KEY_DAMAGED, "the HSM could not unwrap the key") from None

    def _find(self, object_class: ObjectClass, name: str | bytes) -> Any:
        """By label, or by id where the name is bytes."""
        place = (object_class, name)
        if place not in self._keys:
            by = {"label": name} if isinstance(name, str) else {"id": name}
            try:
                self._keys[place] = self._session.get_key(object_class=object_class, **by)
            except pkcs11.NoSuchKey:
                if not list(self._session.get_objects({Attribute.PRIVATE: True})):
                    # A token that was taken away looks like this to SoftHSM.
                    raise RakkanError(Code.HSM_UNAVAILABLE, "the token is gone, or had no ceremony yet") from None
                raise RakkanError(Code.KEY_UNKNOWN, f"the token has no key {name!r}") from None
            except pkcs11.MultipleObjectsReturned:
                raise RakkanError(Code.KEY_UNKNOWN, f"the token has several keys {name!r}") from None
        return self._keys[place]

    def _exists(self, object_class: ObjectClass, label: str) -> bool:
        return bool(list(self._session.get_objects({Attribute.CLASS: object_class, Attribute.LABEL: label})))

    @staticmethod
    def _destroy_all(session: Any, label: str) -> None:
        for key in list(session.get_objects({Attribute.LABEL: label})):
            key.destroy()

    @contextmanager
    def _writable(self) -> Iterator[Any]:
        # A second session without a PIN shares the log-in; closing it logs nobody out.
        session = self._token.open(rw=True, attribute_mapper=self._mapper)
        try:
            yield session
        finally:
            session.close()
