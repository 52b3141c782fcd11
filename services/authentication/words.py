"""Every text that a signer reads, in each language: `texts/<language>.json`. Knows no page.

`{…}` is filled in, escaped, by the page.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

Language = Literal["en", "ja"]
LANGUAGES: dict[Language, str] = {"en": "English", "ja": "日本語"}
DEFAULT: Language = "en"
_TEXTS = Path(__file__).parent / "texts"

Texts = Mapping[Language, Mapping[str, str]]


def load() -> Texts:
    return {language: json.loads((_TEXTS / f"{language}.json").read_text(encoding="utf-8")) for language in LANGUAGES}


def language_of(tag: str) -> Language | None:
    """The language of a BCP 47 tag, if there is one here."""
    primary = tag.strip().lower().partition("-")[0]
    return next((language for language in LANGUAGES if language == primary), None)
