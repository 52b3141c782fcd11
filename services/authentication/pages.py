"""How pages are made: templates, what the browser may load and do, and how foreign text is shown. Knows no story."""

import hashlib
import re
import unicodedata
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import segno
from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context, select_autoescape
from jinja2.runtime import Context
from markupsafe import Markup, escape
from starlette.exceptions import HTTPException
from starlette.responses import Response

from services.authentication import words
from services.authentication.names import read_name
from services.authentication.sessions import Session
from shared.errors import Code, RakkanError

_HERE = Path(__file__).parent
_STATIC = {
    "rakkan.css": "text/css; charset=utf-8",
    "rakkan.js": "text/javascript; charset=utf-8",
    "seal.svg": "image/svg+xml",
}
_SOURCE = re.compile(r"[a-z][a-z0-9+.-]*:(//[A-Za-z0-9.\[\]:-]+)?")
_SHOWN_MAX = 255
_HEX_IN_A_GROUP = 8


class Pages:
    def __init__(self, *, service: str, time_zone: str, rp_id: str | None) -> None:
        self._static = {name: (_HERE / "static" / name).read_bytes() for name in _STATIC}
        self._everywhere = {
            "service": service,
            "rp_id": rp_id,
            "zone": ZoneInfo(time_zone),
            "texts": words.load(),
            "languages": words.LANGUAGES,
            "static": {name: f"/static/{name}?v={_version(body)}" for name, body in self._static.items()},
        }

    def page(
        self,
        template: str,
        session: Session,
        language: words.Language,
        *,
        status: int = 200,
        connects: bool = False,
        sends_to: str | None = None,
        **facts: Any,
    ) -> Response:
        """A page. `connects`: its script asks this origin; `sends_to`: where its form's answer leads the browser."""
        text = (
            _environment()
            .get_template(template)
            .render(session=session, language=language, form_token=session.form_token, **self._everywhere, **facts)
        )
        headers = {
            "Content-Security-Policy": policy(connects=connects, sends_to=sends_to),
            "Content-Language": language,
        }
        return Response(text, status_code=status, media_type="text/html; charset=utf-8", headers=headers)

    def static(self, name: str) -> Response:
        if name not in self._static:
            raise HTTPException(404)
        # Its address holds its digest, so it can be kept for good.
        headers = {"Cache-Control": "public, max-age=31536000, immutable"}
        return Response(self._static[name], media_type=_STATIC[name], headers=headers)


@cache
def _environment() -> Environment:
    """One for the process: templates are compiled when they are first used, and kept."""
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {"shown": shown, "read_name": read_name, "hex_groups": hex_groups, "moment": _moment}
    environment.globals |= {"t": _translate}
    return environment


@pass_context
def _moment(context: Context, at: datetime) -> Markup:
    there = at.astimezone(context["zone"])
    return Markup('<time datetime="{}">{}</time>').format(
        at.isoformat(timespec="seconds"), there.strftime("%Y-%m-%d %H:%M %Z")
    )


def policy(*, connects: bool = False, sends_to: str | None = None) -> str:
    """The Content-Security-Policy of a page.

    Chromium holds `form-action` against redirects too, so the one place that a form's answer leads to is named.
    """
    actions = f"'self' {_source(sends_to)}" if sends_to else "'self'"
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        + ("connect-src 'self'; " if connects else "")
        + f"form-action {actions}; frame-ancestors 'none'; base-uri 'none'"
    )


def _source(address: str) -> str:
    """Scheme and host of a registered redirect URI, or the bare scheme of an app's own."""
    parts = urlsplit(address)
    source = f"{parts.scheme}://{parts.netloc}" if parts.scheme in ("http", "https") else f"{parts.scheme}:"
    if not _SOURCE.fullmatch(source):
        raise RakkanError(Code.INTERNAL, "a redirect URI that no policy can name")
    return source


def shown(text: str, *, characters_max: int = _SHOWN_MAX) -> Markup:
    """Foreign text as it is, and what cannot be seen by its number.

    Control and direction characters can make a label read as another one: they are shown, not obeyed. The rest stands
    in `bdi`, so that right-to-left text does not reorder what is around it.
    """
    cut = text[:characters_max]
    parts = [Markup('<b class="odd">U+{:04X}</b>').format(ord(c)) if _is_odd(c) else escape(c) for c in cut]
    rest = Markup("&hellip;") if len(text) > characters_max else Markup("")
    return Markup('<bdi dir="auto">{}{}</bdi>').format(Markup("").join(parts), rest)


def _is_odd(character: str) -> bool:
    """Controls, formats (bidi, zero width, tags), surrogates, private and unassigned ones, line separators."""
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def hex_groups(digest: bytes) -> str:
    text = digest.hex()
    return " ".join(text[i : i + _HEX_IN_A_GROUP] for i in range(0, len(text), _HEX_IN_A_GROUP))


def qr_code(text: str) -> Markup:
    """A QR code (ISO/IEC 18004) as SVG. It stands in the page: a picture at an address would carry its secret there."""
    code = segno.make(text, error="m", micro=False)
    drawn: str = code.svg_inline(scale=4, dark="#000", light="#fff", omitsize=True)
    return Markup(drawn)  # noqa: S704 - numbers only, the text is in the pattern


def _version(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:16]


@pass_context
def _translate(context: Context, key: str, /, **facts: Any) -> Markup:
    """A text in the page's language. The text may hold markup of ours; what is put into it is escaped."""
    language: words.Language = context["language"]
    return Markup(context["texts"][language][key]).format(**facts)  # noqa: S704 - our own texts, facts are escaped by format


def accepted_language(header: str) -> words.Language:
    """The first language of Accept-Language that there is, by weight."""
    wishes: list[tuple[float, words.Language]] = []
    for part in header[:200].split(","):
        tag, _, weight = part.strip().partition(";q=")
        language = words.language_of(tag)
        if language:
            wishes.append((_weight(weight), language))
    return max(wishes, key=lambda wish: wish[0], default=(0.0, words.DEFAULT))[1]


def _weight(text: str) -> float:
    try:
        return float(text) if text else 1.0
    except ValueError:
        return 0.0
