"""Writes docs/settings.md from the settings classes of the rooms: `python -m deploy.settings_page --write`."""

import ast
import importlib
import inspect
import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from shared.messaging.topology import OPERATOR, ROOMS
from shared.settings import PREFIX, RoomSettings

FILE = Path(__file__).parents[1] / "docs" / "settings.md"
SERVICES = Path(__file__).parents[1] / "services"

_HEAD = """\
# Settings

Every setting is an environment variable. A section's names are joined by `__`; lists are JSON. Secrets are never values
but files (`…_FILE`), as Kubernetes, systemd and Docker mount them. A variable that begins with `RAKKAN_` and is not in
these tables stops the start, so that a mistyped name is never a silent default.

This page is written by `python -m deploy.settings_page --write`; a test compares it with the code.
"""


def page() -> str:
    """The whole page."""
    common = set(RoomSettings.model_fields)
    parts = [_HEAD, _table("Every room", _rows(RoomSettings, PREFIX, RoomSettings.model_fields))]
    for room in (*ROOMS, OPERATOR):
        settings = _settings(room)
        if settings is not None:
            own = {name: field for name, field in settings.model_fields.items() if name not in common}
            parts.append(_table(f"`{room}`", _rows(settings, PREFIX, own)))
    return "\n".join(parts)


def _settings(room: str) -> type[RoomSettings] | None:
    if not (SERVICES / room / "settings.py").exists():
        return None
    settings: type[RoomSettings] = importlib.import_module(f"services.{room}.settings").Settings
    return settings


def _table(title: str, rows: Iterator[tuple[str, str, str]]) -> str:
    lines = [f"\n## {title}\n", "| Name | Default | Meaning |", "|---|---|---|"]
    found = [f"| `{name}` | {default} | {meaning} |" for name, default, meaning in rows]
    return "\n".join([*lines, *found]) + "\n" if found else f"\n## {title}\n\nNothing beside the above.\n"


def _rows(model: type[BaseModel], prefix: str, fields: dict[str, FieldInfo]) -> Iterator[tuple[str, str, str]]:
    meanings = _meanings(model)
    for name, field in fields.items():
        full = f"{prefix}{name.upper()}"
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            yield from _rows(section, f"{full}__", section.model_fields)
        else:
            yield full, _default(field), meanings.get(name, "")


def _default(field: FieldInfo) -> str:
    value: Any = field.get_default(call_default_factory=False)
    if value is PydanticUndefined:
        return "required"
    if value is None or value in ("", ()):
        return "none"
    if isinstance(value, PurePath):
        return f"`{value}`"
    return f"`{value if isinstance(value, str) else json.dumps(value, default=str)}`"


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """Field to the docstring under it, nearest class first."""
    meanings: dict[str, str] = {}
    for class_ in reversed(model.__mro__):
        if not issubclass(class_, BaseModel) or class_.__module__.startswith("pydantic"):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(class_))).body[0]
        if not isinstance(body, ast.ClassDef):
            continue
        for field, text in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
                meanings[field.target.id] = " ".join(ast.literal_eval(text.value).split()).replace("|", "\\|")
    return meanings


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        FILE.write_text(page(), encoding="utf-8")
    else:
        sys.stdout.write(page())
