"""`python -m deploy.rabbitmq` prints RabbitMQ's definitions; with `--write` it renews the committed file."""

import json
import sys
from pathlib import Path

from deploy.rabbitmq.definitions import definitions

FILE = Path(__file__).parent / "definitions.json"


def text() -> str:
    """The definitions as the committed file holds them."""
    return json.dumps(definitions(), indent=2) + "\n"


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        FILE.write_text(text(), encoding="utf-8")
    else:
        sys.stdout.write(text())
