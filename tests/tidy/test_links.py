"""Every link from one of our pages to another leads somewhere."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def test_every_link_between_our_pages_leads_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("services/*/README.md")]
    links = [
        (page, link)
        for page in pages
        for link in _LINK.findall(page.read_text(encoding="utf-8"))
        if not link.startswith("http")
    ]
    assert len(links) > 30
    assert [(str(page.relative_to(ROOT)), link) for page, link in links if not (page.parent / link).exists()] == []
