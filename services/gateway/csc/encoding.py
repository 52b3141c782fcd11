"""Base64 and hexadecimal as CSC clients really send them. Rules only.

The text wants standard base64 in JSON; clients send the URL-safe alphabet too, with and without padding. Both name the
same bytes, and only bytes are ever compared.
"""

import base64
import binascii

_TO_STANDARD = str.maketrans("-_", "+/")


def decode_base64(text: str) -> bytes:
    """The bytes, or ValueError. No line breaks, no mixture of the alphabets, no bits left over."""
    if ("+" in text or "/" in text) and ("-" in text or "_" in text):
        raise ValueError("two alphabets in one text")
    body = text.translate(_TO_STANDARD).rstrip("=")
    padding = len(text) - len(body)
    due = -len(body) % 4
    if not body or padding not in (0, due):
        raise ValueError("no base64 text or wrong padding")
    try:
        raw = base64.b64decode(body + "=" * due, validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None
    # Bits left over in the last character would give one value several spellings.
    if base64.b64encode(raw).rstrip(b"=") != body.encode("ascii"):
        raise ValueError("bits left over")
    return raw


def encode_base64(raw: bytes) -> str:
    """Standard alphabet, padded, one line: what the CSC asks for."""
    return base64.b64encode(raw).decode("ascii")


def decode_hex(text: str) -> bytes:
    """The bytes of a hexadecimal number, or ValueError. An odd number of digits means a leading zero was left out."""
    if not text or not all(digit in "0123456789abcdefABCDEF" for digit in text):
        raise ValueError("not a hexadecimal number")
    return bytes.fromhex(text if len(text) % 2 == 0 else f"0{text}")


def encode_serial(serial: int) -> str:
    """A certificate's serial number in hexadecimal, whole bytes, as the CSC writes it."""
    digits = f"{serial:X}"
    return digits if len(digits) % 2 == 0 else f"0{digits}"
