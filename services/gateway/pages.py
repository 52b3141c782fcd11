"""What people read: the page of methods, the OpenAPI words, the logo. Loads nothing from other hosts, no script."""

import base64
import hashlib
import json
import struct
import zlib
from collections.abc import Iterable, Mapping
from datetime import date
from html import escape
from typing import Any

from fastapi import FastAPI
from starlette.responses import Response

from services.gateway import tsp
from services.gateway.csc.facade import Facade, Method
from services.gateway.csc.model import Version
from services.gateway.info import info_document
from services.gateway.selection import Selection
from services.gateway.settings import Settings
from shared.registry import Registry

DESCRIPTION = """The API of the Cloud Signature Consortium: 1.0.4.0 under `/csc/v1`, 2.2.0.0 under `/csc/v2`.
Every method is an HTTP POST with a JSON body. Get an access token at the OAuth endpoints that `info` names, and send it
as `Authorization: Bearer …`. Errors are `{"error": …, "error_description": …}`."""

_ERRORS = {
    400: "A parameter is missing or wrong",
    401: "The access token is not valid or has expired",
    429: "Too many requests: see Retry-After",
    500: "A fault of the service",
    503: "Not now: see Retry-After",
}
_ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"error": {"type": "string"}, "error_description": {"type": "string"}},
    "required": ["error"],
}
_OK = 200
_TYPES: dict[type, str] = {bool: "boolean", int: "integer", str: "string"}


def described(method: Method, version: Version) -> dict[str, Any]:
    """What FastAPI wants to know of a method for the OpenAPI document."""
    words = _described(method.name, method.summary, example=method.example, answer=method.answer, version=version)
    responses = words["openapi_extra"]["responses"]
    if method.answer is not None and method.good != (_OK,):
        good = responses.pop(str(_OK))
        responses |= {str(int(status)): good for status in method.good}
        words["status_code"] = int(method.good[0])
    return words


def described_info(facade: Facade, settings: Settings) -> dict[str, Any]:
    """Likewise of `info`, with what a caller sees of a registry without entries."""
    nothing = Selection(Registry(version=1))
    document = info_document(facade, settings, nothing, today=date.min)
    return _described("info", "Describe this service", example={}, answer=document, version=facade.version)


def described_timestamps() -> dict[str, Any]:
    """Likewise of the plain RFC 3161 endpoint."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    words = _ERRORS | {403: "Not for your network", 404: "No such service", 413: "Too long", 415: "No TimeStampReq"}
    refusals = {
        str(status): {"description": words[status], "content": {"application/json": {"schema": _ERROR_SCHEMA}}}
        for status in (403, 404, 413, 415, 429)
    }
    named = {"name": "service", "in": "path", "required": True, "schema": {"type": "string"}, "example": "clock"}
    return {
        "summary": "Get a time-stamp by RFC 3161, without a token, from a network that the operator named",
        "operation_id": "tsa",
        "tags": ["RFC 3161"],
        "openapi_extra": {
            "parameters": [named],
            "requestBody": {"required": True, "content": {tsp.QUERY: binary}},
            "responses": {
                "200": {"description": "A TimeStampResp, which may be a rejection", "content": {tsp.REPLY: binary}},
                **refusals,
            },
        },
        "response_class": Response,
    }


def _described(
    name: str, summary: str, *, example: Mapping[str, Any], answer: Mapping[str, Any] | None, version: Version
) -> dict[str, Any]:
    secured = name != "info"
    good: dict[str, Any] = {"description": "Done" if answer is None else "The answer"}
    if answer is not None:
        good["content"] = {"application/json": {"schema": _schema(answer), "example": dict(answer)}}
    responses: dict[str, Any] = {"204" if answer is None else "200": good}
    for status, words in _ERRORS.items():
        if secured or status in (400, 429):
            responses[str(status)] = {
                "description": words,
                "content": {"application/json": {"schema": _ERROR_SCHEMA}},
            }
    extra: dict[str, Any] = {
        "requestBody": {
            "required": secured,
            "content": {"application/json": {"schema": _schema(example), "example": dict(example)}},
        },
        "responses": responses,
    }
    if secured:
        extra["security"] = [{"access_token": []}]
    return {
        "summary": summary,
        "operation_id": f"{version}_{name.replace('/', '_')}",
        "openapi_extra": extra,
        "response_class": Response,
        "status_code": 204 if answer is None else 200,
    }


def _schema(example: object) -> dict[str, Any]:
    if isinstance(example, Mapping):
        return {"type": "object", "properties": {name: _schema(value) for name, value in example.items()}}
    if isinstance(example, list):
        return {"type": "array", "items": _schema(example[0]) if example else {}}
    return {"type": _TYPES.get(type(example), "string")}


def add_pages(app: FastAPI, facades: Iterable[Facade], settings: Settings) -> None:
    """`/`, `/docs` and `/logo.png`, made once; and the security scheme in the OpenAPI document."""
    page = _page(facades, settings).encode()
    picture = logo()
    style = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{style}'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'"

    async def docs() -> Response:
        return Response(page, media_type="text/html; charset=utf-8", headers={"Content-Security-Policy": policy})

    async def image() -> Response:
        return Response(picture, media_type="image/png", headers={"Cache-Control": "public, max-age=86400"})

    for path in ("/", "/docs"):
        app.add_api_route(path, docs, methods=["GET"], include_in_schema=False)
    app.add_api_route("/logo.png", image, methods=["GET"], include_in_schema=False)
    document = app.openapi()
    token_url = f"{settings.authentication_url}/oauth2/token"
    document.setdefault("components", {})["securitySchemes"] = {
        "access_token": {
            "type": "oauth2",
            "flows": {
                "clientCredentials": {"tokenUrl": token_url, "scopes": {"service": "Use the service"}},
                "authorizationCode": {
                    "authorizationUrl": f"{settings.authentication_url}/oauth2/authorize",
                    "tokenUrl": token_url,
                    "scopes": {
                        "service": "Use the service for the signer who logged in",
                        "credential": "Sign what the signer approved, once",
                    },
                },
            },
        }
    }
    document["servers"] = [
        {"url": settings.public_url},
        {
            "url": f"{settings.public_url}/s/{{service}}",
            "description": "A virtual service: the same methods with other trust services behind them",
            "variables": {"service": {"default": "service", "description": "Its name, as the operator told you"}},
        },
    ]


_STYLE = """
:root { color-scheme: light dark; --seal: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --seal: #ff8a80; } }
body { font: 1rem/1.55 system-ui, sans-serif; max-width: 52rem; margin: 0 auto; padding: 1rem; }
header { display: flex; gap: 1rem; align-items: center; }
header img { width: 3rem; height: 3rem; }
h1 { margin: 0; }
a { color: var(--seal); }
a:focus-visible, summary:focus-visible, pre:focus-visible { outline: 3px solid var(--seal); outline-offset: 2px; }
code, pre { font-family: ui-monospace, monospace; font-size: .9rem; overflow-wrap: anywhere; }
pre { padding: .75rem; overflow-x: auto; border: 1px solid; border-radius: .4rem; white-space: pre-wrap; }
details { border-top: 1px solid; padding: .25rem 0; }
summary { cursor: pointer; padding: .6rem 0; }
nav li { display: inline-block; margin-right: 1rem; }
nav ul { padding: 0; }
"""


def _page(facades: Iterable[Facade], settings: Settings) -> str:
    facades = tuple(facades)
    links = "".join(
        f'<li><a href="#{facade.version}">CSC {facade.specs} at <code>/csc/{facade.version}</code></a></li>'
        for facade in facades
    )
    sections = "".join(_section(facade, settings) for facade in facades)
    name, url = escape(settings.name), escape(settings.public_url)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}: the API</title>
<link rel="icon" href="logo.png">
<style>{_STYLE}</style>
</head>
<body>
<header><img src="logo.png" alt=""><div><h1>{name}</h1><div>{escape(settings.description)}</div></div></header>
<main>
<p>This service speaks the API of the Cloud Signature Consortium. Every method is an HTTP <code>POST</code> with a JSON
body. The machine-readable description is <a href="openapi.json">openapi.json</a>.</p>
<nav aria-label="Versions"><ul>{links}</ul></nav>
<h2 id="token">First, an access token</h2>
<pre tabindex="0">curl -u CLIENT:SECRET -d grant_type=client_credentials -d scope=service \\
  {escape(settings.authentication_url)}/oauth2/token</pre>
{sections}
<section aria-labelledby="services">
<h2 id="services">Trust services</h2>
<p>A <em>virtual service</em> is the same API with other certification and time-stamping authorities behind it. Its
base is <code>{url}/s/SERVICE</code> instead of <code>{url}</code>; the operator tells you its name. Which authorities
there are stands in <code>info</code> under <code>extensions</code>, and a time-stamp can name the one it wants.</p>
<p>Clients of RFC 3161 that know no CSC use the same authorities without a token, from networks the operator named:</p>
<pre tabindex="0">openssl ts -query -data FILE -sha256 -cert -out query.tsq
curl {url}/s/SERVICE/tsa -H 'Content-Type: application/timestamp-query' \\
  --data-binary @query.tsq -o reply.tsr</pre>
</section>
</main>
</body>
</html>
"""


def _section(facade: Facade, settings: Settings) -> str:
    rows = "".join(_row(facade, method, settings) for method in facade.methods)
    url = f"{escape(settings.public_url)}/csc/{facade.version}"
    return f"""<section aria-labelledby="{facade.version}">
<h2 id="{facade.version}">CSC {facade.specs}</h2>
<details><summary><code>info</code> &ndash; Describe this service (needs no token)</summary>
<pre tabindex="0">curl -X POST {url}/info</pre></details>
{rows}</section>
"""


def _row(facade: Facade, method: Method, settings: Settings) -> str:
    url = f"{settings.public_url}/csc/{facade.version}/{method.name}"
    request = json.dumps(method.example, indent=2, ensure_ascii=False)
    answer = "204, nothing" if method.answer is None else json.dumps(method.answer, indent=2, ensure_ascii=False)
    call = (
        f"curl {url} \\\n  -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: application/json' \\\n  -d '{request}'"
    )
    return f"""<details><summary><code>{method.name}</code> &ndash; {escape(method.summary)}</summary>
<pre tabindex="0">{escape(call)}</pre>
<p>Answer:</p>
<pre tabindex="0">{escape(answer)}</pre></details>
"""


def logo() -> bytes:
    """A red seal as a PNG, as `info` wants one (CSC 11.1: at most 256 x 256 pixels)."""
    size = len(_SEAL) * _DOT
    rows = b"".join((b"\0" + b"".join(bytes([dot == "#"]) * _DOT for dot in row)) * _DOT for row in _SEAL)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 3, 0, 0, 0)),
        (b"PLTE", bytes([255, 255, 255, 179, 38, 30])),
        (b"tRNS", b"\0\xff"),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


_DOT = 4
_SEAL = (
    "################",
    "#..............#",
    "#..............#",
    "#..##########..#",
    "#......##......#",
    "#......##......#",
    "#..##########..#",
    "#..#...##...#..#",
    "#..#...##...#..#",
    "#..##########..#",
    "#......##......#",
    "#......##......#",
    "#..##########..#",
    "#..............#",
    "#..............#",
    "################",
)
