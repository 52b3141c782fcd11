"""The page of the partner that signers come back to: keeps the address it was called by. Knows nothing of OAuth."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Empty, Queue

from deploy.local.program import StackError

_THANKS = b"""<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>The partner's page</title><p>Thank you. You are back at the partner's page.</p></html>"""


class Landing:
    """A server on a loopback port; `came` waits for the next browser."""

    def __init__(self, port: int) -> None:
        self.url = f"http://localhost:{port}/back"
        self._visits: Queue[str] = Queue()

    def came(self, *, timeout_s: float = 30.0) -> str:
        """The whole address that a signer's browser was sent back to."""
        try:
            return self._visits.get(timeout=timeout_s)
        except Empty:
            raise StackError(f"no browser came back to {self.url} within {timeout_s:.0f} s") from None

    def note(self, path: str) -> None:
        self._visits.put(self.url.removesuffix("/back") + path)


@contextmanager
def landing(port: int) -> Iterator[Landing]:
    """Open while somebody signs."""
    page = Landing(port)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.startswith("/back?"):  # browsers also ask for a favicon
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            page.note(self.path)
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(_THANKS)))
            self.end_headers()
            self.wfile.write(_THANKS)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the name is the base class's
            """Say nothing: the address holds a code."""

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as trouble:
        # Another port would not do: this one is in the client's registered address.
        raise StackError(f"the partner's page cannot be on port {port}: {trouble}") from None
    with server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        serving.start()
        try:
            yield page
        finally:
            server.shutdown()
            serving.join()
