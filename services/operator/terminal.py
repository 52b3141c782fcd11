"""The operator's terminal and files: what is asked, shown and kept. Knows no command and no bus."""

import base64
import contextlib
import getpass
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


class NotUnderstoodError(Exception):
    """What was said makes no sense; exit status 2."""


class Terminal:
    """Results go to standard output, all else to standard error."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def ask_new_pin(self) -> str:
        """Twice, since nobody sees it."""
        if not sys.stdin.isatty():
            raise NotUnderstoodError("there is no terminal to ask for the PIN at: use --pin-file")
        pin = getpass.getpass("PIN: ")
        if getpass.getpass("The PIN again: ") != pin:
            raise NotUnderstoodError("the two PINs differ")
        return pin

    def confirm(self, text: str, word: str) -> None:
        """Raise unless the word is typed."""
        if not sys.stdin.isatty():
            raise NotUnderstoodError("there is no terminal to confirm at: use --yes")
        self.progress(text)
        if input().strip() != word:
            raise NotUnderstoodError("not confirmed, nothing was done")

    def progress(self, text: str) -> None:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    def tell(self, text: str, facts: Mapping[str, Any]) -> None:
        """The result: in words, or as JSON."""
        sys.stdout.write((json.dumps(facts, indent=2) if self._as_json else text) + "\n")

    def tell_tables(self, tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        if self._as_json:
            self.tell("", tables)
            return
        for name, rows in tables.items():
            sys.stdout.write(f"{name} ({len(rows)})\n{_table(rows)}\n")


def read_pin(file: str) -> str:
    return read_file(file).rstrip("\r\n")


def read_file(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as trouble:
        raise NotUnderstoodError(f"{file} cannot be read: {trouble}") from None


def read_certificate(file: str) -> str:
    """The certificates of a PEM file as a JWK Set of their keys, each with its certificate (RFC 8705 2.2.2)."""
    text = read_file(file)
    try:
        keys = [_jwk(certificate) for certificate in x509.load_pem_x509_certificates(text.encode())]
    except (ValueError, OverflowError):
        raise NotUnderstoodError(f"{file} holds no certificate in PEM") from None
    return json.dumps({"keys": keys})


def _jwk(certificate: x509.Certificate) -> dict[str, Any]:
    """By hand (RFC 7517): what stands in an operator's image is what the bus needs, and no JOSE library."""
    key = certificate.public_key()
    x5c = {"x5c": [base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()]}
    if isinstance(key, rsa.RSAPublicKey):
        rsa_numbers = key.public_numbers()
        size = (key.key_size + 7) // 8
        return {"kty": "RSA", "n": _base64url(rsa_numbers.n, size), "e": _base64url(rsa_numbers.e, 3), **x5c}
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        numbers, size = key.public_numbers(), (key.key_size + 7) // 8
        coordinates = {"x": _base64url(numbers.x, size), "y": _base64url(numbers.y, size)}
        return {"kty": "EC", "crv": _CURVES[key.curve.name], **coordinates, **x5c}
    if isinstance(key, ed25519.Ed25519PublicKey):
        x = int.from_bytes(key.public_bytes_raw())
        return {"kty": "OKP", "crv": "Ed25519", "x": _base64url(x, 32), **x5c}
    raise ValueError("a key of another kind")


def _base64url(number: int, size: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(size)).rstrip(b"=").decode()


class SecretFile:
    """A new file for a secret. Made before the secret is, which is shown only once and must not be lost."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        try:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except OSError as trouble:
            raise NotUnderstoodError(f"{path} cannot be made: {trouble.strerror}") from None
        self._written = False

    def write(self, secret: str) -> None:
        os.write(self._descriptor, secret.encode() + b"\n")
        os.fsync(self._descriptor)
        self._written = True

    def close(self) -> None:
        """Leave no empty file behind."""
        os.close(self._descriptor)
        if not self._written:
            with contextlib.suppress(OSError):
                self._path.unlink()


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "  none\n"
    lines = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "".join(
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n"
        for line in lines
    )


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    # What others wrote must not move the cursor or color the terminal.
    return "".join(character if character.isprintable() else "?" for character in str(value))
