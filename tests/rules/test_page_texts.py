"""The texts of the pages: the same in every language, all there, all used."""

import re
from pathlib import Path

from services.authentication import words

PAGES = Path(__file__).parents[2] / "services" / "authentication"
TEMPLATES = "".join(path.read_text(encoding="utf-8") for path in sorted((PAGES / "templates").iterdir()))
PROGRAMS = "".join(path.read_text(encoding="utf-8") for path in sorted(PAGES.glob("*.py")))


def test_every_language_has_every_text_with_the_same_gaps() -> None:
    english, *others = (words.load()[language] for language in words.LANGUAGES)
    for other in others:
        assert other.keys() == english.keys()
        for name, text in english.items():
            assert set(re.findall(r"{\w*}", other[name])) == set(re.findall(r"{\w*}", text)), name


def test_every_text_that_a_page_names_is_there() -> None:
    texts = words.load()[words.DEFAULT]
    named = set(re.findall(r"\bt\('(\w+)'[,)]", TEMPLATES))
    messages = set(re.findall(r'\(\d{3}, "(\w+)"\)', PROGRAMS)) | set(re.findall(r'\.message\(\s*"(\w+)"', PROGRAMS))
    refusals = set(re.findall(r'refusal="(\w+)"', PROGRAMS))
    assert not (named | messages | refusals | {f"{name}_title" for name in messages}) - texts.keys()


def test_no_text_is_left_over() -> None:
    everything = TEMPLATES + PROGRAMS
    left = [
        name
        for name in words.load()[words.DEFAULT]
        if not re.search(rf"['\"]{name.removesuffix('_title')}['\"]|['\"]{name}['\"]", everything)
    ]
    assert left == ["kind_passkey", "kind_device"]  # named by what a row holds


def test_languages_are_known_by_their_first_part() -> None:
    assert [words.language_of(tag) for tag in ("ja", "ja-JP", "JA", "en-GB", "fr", "", "x" * 100)] == [
        "ja", "ja", "ja", "en", None, None, None]  # fmt: skip
