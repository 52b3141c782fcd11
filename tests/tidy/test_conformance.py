"""Every test that the conformance pages name exists: a claim without a test is not a claim."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def test_every_test_named_in_the_conformance_pages_exists() -> None:
    named = {
        match.groups()
        for page in (ROOT / "docs" / "conformance").glob("*.md")
        for match in _NAMED.finditer(page.read_text(encoding="utf-8"))
    }
    assert len(named) > 40
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not (ROOT / file).exists()
        or (name and not re.search(rf"^(async )?def {name}\b", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE))
    ]
    assert missing == []
