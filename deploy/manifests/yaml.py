"""Writes YAML: mappings, lists and scalars, no more. Every string is quoted as JSON does it, which YAML reads too."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def dump(*documents: Mapping[str, Any]) -> str:
    """The documents of one file."""
    return "---\n".join("\n".join(_lines(document, 0)) + "\n" for document in documents)


def _lines(value: Mapping[str, Any] | Sequence[Any], depth: int) -> Iterable[str]:
    pad = "  " * depth
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _item(f"{pad}{_key(key)}:", item, depth + 1)
        return
    for item in value:
        if isinstance(item, Mapping) and item:
            first, *rest = _lines(item, depth + 1)
            yield f"{pad}- {first.strip()}"
            yield from rest
        else:
            yield from _item(f"{pad}-", item, depth + 1)


def _item(head: str, item: Any, depth: int) -> Iterable[str]:
    if isinstance(item, Mapping | list | tuple) and item:
        yield head
        yield from _lines(item, depth)
    else:
        yield f"{head} {_scalar(item)}"


def _scalar(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{}"
    if isinstance(value, list | tuple):
        return "[]"
    return json.dumps(value, ensure_ascii=False)


def _key(key: str) -> str:
    plain = key.replace("_", "").replace("-", "").replace(".", "").replace("/", "")
    return key if plain.isalnum() and not plain.isdigit() else json.dumps(key)
