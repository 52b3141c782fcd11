"""Serve acme2certifier's WSGI application. Runs in its own environment, where nothing of Rakkan is."""

import sys
from wsgiref.simple_server import WSGIRequestHandler, make_server

from acme2certifier.share.acme2certifier_wsgi import application  # type: ignore[import-not-found]  # there it is


class Silent(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Its own log tells enough."""


if __name__ == "__main__":
    make_server("127.0.0.1", int(sys.argv[1]), application, handler_class=Silent).serve_forever()
