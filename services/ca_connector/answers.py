"""What a CA's JSON says, and what of its words may be shown to people. Believes nothing of it."""

import json
import unicodedata
from typing import Any

from services.ca_connector.client import Answer
from shared.errors import Code, RakkanError

_WORDS_MAX = 200
_TEXT_MAX = 200_000
JSON = frozenset({"application/json"})


def read_json(answer: Answer) -> Any:
    """The document; AUTHORITY_UNTRUSTED when the body is none."""
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        raise RakkanError(Code.AUTHORITY_UNTRUSTED, "an answer that is not JSON") from None


def look(document: Any, pointer: str) -> Any:
    """What stands at a JSON Pointer (RFC 6901); nothing when nothing does."""
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(document, dict):
            document = document.get(name)
        elif isinstance(document, list):
            document = document[int(name)] if name.isascii() and name.isdigit() and int(name) < len(document) else None
        else:
            return None
    return document


def text_at(document: Any, pointer: str) -> str:
    """The text or number that must stand there; AUTHORITY_UNTRUSTED when none does."""
    found = look(document, pointer)
    if isinstance(found, int) and not isinstance(found, bool):
        found = str(found)
    if not isinstance(found, str) or not 0 < len(found) <= _TEXT_MAX:
        raise RakkanError(Code.AUTHORITY_UNTRUSTED, f"an answer without {pointer}")
    return found


def words(said: Any) -> str:
    """What a CA said, fit for a log or an operator: one line, no control characters, not long."""
    said = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
    shown = "".join(" " if unicodedata.category(one)[0] in "CZ" else one for one in said[: 4 * _WORDS_MAX])
    return " ".join(shown.split())[:_WORDS_MAX]


def why(answer: Answer, *pointers: str) -> str:
    """The reason that a refusal gives at the first of these places, else as much of it as is fit to be shown."""
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        return f"HTTP status {answer.status}"
    said = next((found for one in pointers if (found := look(document, one))), document)
    return words(said) or f"HTTP status {answer.status}"
