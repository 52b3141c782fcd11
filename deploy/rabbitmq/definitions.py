"""RabbitMQ definitions as the topology table implies them: who, what queues, who may touch which. Knows no password."""

import base64
import hashlib
import secrets
from collections.abc import Mapping
from typing import Any

from shared.messaging.topology import (
    DEAD_LETTERS,
    DELIVERIES_MAX,
    LISTENERS,
    QUEUE_MESSAGES_MAX,
    REPLIES,
    ROUTES,
    SENDERS,
    permissions,
    queues_of,
    topic_permissions,
)

VIRTUAL_HOST = "rakkan"
_DEAD_MESSAGES_MAX = 10_000
_DEAD_KEPT_MS = 14 * 24 * 3600 * 1000


def definitions(password_hashes: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Everything RabbitMQ loads at boot. Without hashes nobody logs in by password, only by client certificate."""
    hashes = password_hashes or {}
    return {
        "users": [_user(sender, hashes.get(sender, "")) for sender in SENDERS],
        "vhosts": [{"name": VIRTUAL_HOST}],
        "permissions": [{"user": s, "vhost": VIRTUAL_HOST, **permissions(s)} for s in SENDERS],
        "topic_permissions": [
            {"user": s, "vhost": VIRTUAL_HOST, "exchange": REPLIES, **topic_permissions(s)} for s in SENDERS
        ],
        "exchanges": [
            *(_exchange(listener, "direct") for listener in LISTENERS),
            _exchange(REPLIES, "topic"),
            _exchange(DEAD_LETTERS, "direct"),
        ],
        "queues": [queue for listener in LISTENERS for queue in _queues(listener)],
        "bindings": [binding for listener in LISTENERS for binding in _bindings(listener)],
    }


def password_hash(password: str) -> str:
    """RabbitMQ's salted SHA-256: four bytes of salt, then the digest of salt and password, in base64."""
    salt = secrets.token_bytes(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def _user(name: str, hash_: str) -> dict[str, Any]:
    return {"name": name, "password_hash": hash_, "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": []}


def _exchange(name: str, type_: str) -> dict[str, Any]:
    return {
        "name": name,
        "vhost": VIRTUAL_HOST,
        "type": type_,
        "durable": True,
        "auto_delete": False,
        "internal": False,
        "arguments": {},
    }


def _queues(listener: str) -> list[dict[str, Any]]:
    return [*(_queue(name, _arguments(name, listener)) for name in queues_of(listener)), _dead_queue(listener)]


def _queue(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    arguments = {"x-queue-type": "quorum", **arguments}
    return {"name": name, "vhost": VIRTUAL_HOST, "durable": True, "auto_delete": False, "arguments": arguments}


def _arguments(name: str, listener: str) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "x-max-length": QUEUE_MESSAGES_MAX,
        "x-overflow": "reject-publish",  # the sender learns of it, and at-least-once dead-lettering requires it
        "x-delivery-limit": DELIVERIES_MAX,
        "x-dead-letter-exchange": DEAD_LETTERS,
        "x-dead-letter-routing-key": listener,
        "x-dead-letter-strategy": "at-least-once",
    }
    routes = [route for route in ROUTES.values() if route.queue == name]
    if not any(route.is_job for route in routes):
        # After the longest wait nobody is there to hear the answer.
        arguments["x-message-ttl"] = int(max(route.timeout_s for route in routes) * 1000)
    return arguments


def _dead_queue(listener: str) -> dict[str, Any]:
    limits = {"x-max-length": _DEAD_MESSAGES_MAX, "x-overflow": "drop-head", "x-message-ttl": _DEAD_KEPT_MS}
    return _queue(f"{listener}.dead", limits)


def _bindings(listener: str) -> list[dict[str, Any]]:
    keyed = [(listener, queue, queue.rsplit(".", 1)[1]) for queue in queues_of(listener)]
    keyed.append((DEAD_LETTERS, f"{listener}.dead", listener))
    return [
        {
            "source": source,
            "vhost": VIRTUAL_HOST,
            "destination": queue,
            "destination_type": "queue",
            "routing_key": key,
            "arguments": {},
        }
        for source, queue, key in keyed
    ]
