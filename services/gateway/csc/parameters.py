"""The parameters of one request: read by name and type, refused in the mandated words. Knows no method.

Explicit null means absent and unknown members are ignored (clients send both); a name that comes twice is refused,
since two readers could take different ones.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn, TypeGuard

from services.gateway.csc.encoding import decode_base64
from services.gateway.refusals import CSCError, invalid

_INTEGER_MAX = 2**31 - 1
_UNCLEAN = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def refuse(description: str) -> NoReturn:
    raise CSCError(invalid(description)) from None


def read_body(body: bytes) -> "Parameters":
    """The JSON object of a request; an empty body is an empty object."""
    try:
        members = json.loads(body.decode(), object_pairs_hook=_once, parse_constant=_no_constant) if body else {}
    except (ValueError, RecursionError):
        refuse("The request body is not a JSON object, or has a member more than once")
    if not isinstance(members, dict):
        refuse("The request body is not a JSON object")
    return Parameters(members)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member more than once")
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


class Parameters:
    """The members of one JSON object. Every reader answers or refuses."""

    def __init__(self, members: Mapping[str, Any]) -> None:
        self._members = members

    def has(self, name: str) -> bool:
        return self._members.get(name) is not None

    def string(self, name: str, *, most: int) -> str:
        """A string that must be there."""
        text = self._members.get(name)
        if not isinstance(text, str):
            refuse(f"Missing (or invalid type) string parameter {name}")
        if not text or len(text) > most or not _clean(text):
            refuse(f"Invalid parameter {name}")
        return text

    def optional_string(self, name: str, *, most: int) -> str | None:
        """A string that may be missing; of a wrong type, too long or unclean, it is an invalid parameter."""
        text = self._members.get(name)
        if text is None:
            return None
        if not isinstance(text, str) or len(text) > most or not _clean(text):
            refuse(f"Invalid parameter {name}")
        return text

    def typed_string(self, name: str, *, most: int) -> str | None:
        """A string that may be missing, for which the standard has a text when its type is wrong."""
        return self.string(name, most=most) if self.has(name) else None

    def boolean(self, name: str) -> bool:
        """True or false; false when missing, as all booleans of the CSC."""
        value = self._members.get(name)
        if value is None:
            return False
        if not isinstance(value, bool):
            refuse(f"Invalid parameter {name}")
        return value

    def optional_integer(self, name: str) -> int | None:
        value = self._members.get(name)
        if value is None:
            return None
        if not _is_integer(value) or not 1 <= value <= _INTEGER_MAX:
            refuse(f"Invalid parameter {name}")
        return value

    def number_of_signatures(self) -> int:
        value = self._members.get("numSignatures")
        if not _is_integer(value):
            refuse("Missing (or invalid type) integer parameter numSignatures")
        if value < 1:
            refuse("Invalid value for parameter numSignatures")
        if value > _INTEGER_MAX:
            refuse("Numbers of signatures is too high")
        return value

    def raw(self, name: str) -> Any:
        """The member as it came, for what has no reader of its own."""
        return self._members.get(name)

    def digests(self, name: str, *, most: int) -> tuple[bytes, ...]:
        """The array of base64 hashes that must be there, as bytes."""
        texts = self._members.get(name)
        # Both versions say `hash` here, whatever the array is called.
        if not isinstance(texts, list):
            refuse("Missing (or invalid type) array parameter hash")
        if not texts:
            refuse("Empty hash array")
        if len(texts) > most:
            refuse(f"Too many hashes: at most {most} in one call")
        return tuple([_digest(text) for text in texts])

    def nested(self, name: str) -> "Parameters | None":
        """A JSON object that may be missing, as parameters of its own."""
        members = self._members.get(name)
        if members is None:
            return None
        if not isinstance(members, dict):
            refuse(f"Invalid parameter {name}")
        return Parameters(members)

    def base64_array(self, name: str, *, most: int) -> tuple[bytes, ...]:
        """An array of base64 texts that must be there."""
        texts = self._members.get(name)
        if not isinstance(texts, list):
            refuse(f"Missing (or invalid type) array parameter {name}")
        if not 1 <= len(texts) <= most or not all(isinstance(text, str) for text in texts):
            refuse(f"Invalid parameter {name}")
        try:
            return tuple(decode_base64(text) for text in texts)
        except ValueError:
            refuse(f"Invalid parameter {name}")

    def base64(self, name: str) -> bytes | None:
        """Base64 that may be missing."""
        text = self.typed_string(name, most=4096)
        if text is None:
            return None
        try:
            return decode_base64(text)
        except ValueError:
            refuse(f"Invalid parameter {name}")


def _digest(text: object) -> bytes:
    try:
        return decode_base64(text if isinstance(text, str) else "")
    except ValueError:
        refuse("Invalid Base64 hash string parameter")


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _clean(text: str) -> bool:
    """No control characters and no half surrogate pairs: neither travels through UTF-8 and SQL as it is."""
    return _UNCLEAN.search(text) is None
