"""docker-compose.yml: everything in containers. `prepare` makes what an operator makes in production."""

from collections.abc import Mapping
from typing import Any

from deploy.manifests.rooms import HTTP_PORT, SECRETS, SIDE_PORT, TRUST, UID, Room, rooms
from deploy.manifests.yaml import dump

HEAD = """\
# Written by `python -m deploy.manifests --write` from shared/messaging/topology.py. Do not edit.
# For trying Rakkan out: `docker compose up --build --wait`. The token of SoftHSM is no HSM.
"""
_DATA = "/var/lib/rakkan"
_USER = f"{UID}:{UID}"
_MODULE = "/usr/lib/softhsm/libsofthsm2.so"
_LABELS = {"svg": "rakkan-svg", "sam": "rakkan-sam", "ca_connector": "rakkan-ca"}


def compose() -> str:
    """The whole file."""
    services = {
        "prepare": _tool("python", "-m", "deploy.prepare", _DATA),
        "postgres": _postgres(),
        "rabbitmq": _rabbitmq(),
    }
    services["migrate"] = _migrate()
    services["tsa"] = _tsa()
    services |= {room.host: _room(room) for room in rooms()}
    return HEAD + dump(
        {"name": "rakkan", "services": services, "volumes": {"data": {}, "postgres": {}, "rabbitmq": {}}}
    )


def _build(service: str) -> Mapping[str, Any]:
    arguments = {"SERVICE": service, "PACKAGES": "softhsm2 openssl"}
    return {"context": ".", "dockerfile": "deploy/Dockerfile", "args": arguments}


def _tool(*command: str) -> dict[str, Any]:
    return {
        "build": _build("sam"),
        "image": "rakkan-tools",
        "entrypoint": list(command),
        "user": _USER,
        "volumes": [f"data:{_DATA}"],
        "healthcheck": {"disable": True},
    }


def _after(**conditions: str) -> Mapping[str, Any]:
    return {name.replace("_", "-"): {"condition": condition} for name, condition in conditions.items()}


def _postgres() -> Mapping[str, Any]:
    return {
        "image": "postgres:15.14-bookworm",
        "user": _USER,
        "environment": {
            "POSTGRES_DB": "rakkan",
            "POSTGRES_PASSWORD_FILE": f"{_DATA}/secrets/administrator_password",
            "PGDATA": "/var/lib/postgresql/data/cluster",
        },
        "volumes": [f"data:{_DATA}:ro", "postgres:/var/lib/postgresql/data"],
        "depends_on": _after(prepare="service_completed_successfully"),
        "healthcheck": {"test": ["CMD", "pg_isready", "-q", "-h", "127.0.0.1", "-d", "rakkan"], "interval": "2s"},
    }


def _rabbitmq() -> Mapping[str, Any]:
    return {
        "image": "rabbitmq:3.13.7",
        "user": _USER,
        "hostname": "rabbitmq",
        "environment": {"RABBITMQ_CONFIG_FILE": f"{_DATA}/rabbitmq/rabbitmq.conf", "HOME": "/var/lib/rabbitmq"},
        "volumes": [f"data:{_DATA}:ro", "rabbitmq:/var/lib/rabbitmq"],
        "depends_on": _after(prepare="service_completed_successfully"),
        "healthcheck": {
            "test": ["CMD", "rabbitmq-diagnostics", "-q", "check_port_connectivity"],
            "interval": "5s",
            "timeout": "10s",
            "retries": 20,
        },
    }


def _migrate() -> Mapping[str, Any]:
    return _tool("python", "-m", "deploy.postgres.migrate") | {
        "environment": {
            "RAKKAN_DATABASE__HOST": "postgres",
            "RAKKAN_DATABASE__PASSWORD_FILE": f"{_DATA}/secrets/administrator_password",
            "RAKKAN_DATABASE_PASSWORDS_FOLDER": f"{_DATA}/secrets",
        },
        "depends_on": _after(postgres="service_healthy"),
    }


def _tsa() -> Mapping[str, Any]:
    command = (
        "python",
        "-m",
        "deploy.local.tsa",
        "--folder",
        f"{_DATA}/tsa/authority",
        "--host",
        "0.0.0.0",  # noqa: S104 - in its container
        "--port",
        "8080",
    )
    return _tool(*command) | {"depends_on": _after(prepare="service_completed_successfully")}


def _room(room: Room) -> Mapping[str, Any]:
    # One volume holds every room's files: this is for trying out. In production each room mounts its own.
    settings = {
        name: value.replace(SECRETS, f"{_DATA}/secrets/{room.name}").replace(TRUST, f"{_DATA}/trust")
        for name, value in room.settings().items()
    }
    settings["RAKKAN_BROKER__HOST"] = "rabbitmq"
    conditions = {"rabbitmq": "service_healthy", "migrate": "service_completed_successfully"}
    if room.has_database:
        settings["RAKKAN_DATABASE__HOST"] = "postgres"
    if room.has_token:
        settings |= {
            "SOFTHSM2_CONF": f"{_DATA}/softhsm/{room.name}/softhsm2.conf",
            "RAKKAN_HSM__MODULE": _MODULE,
            "RAKKAN_HSM__TOKEN_LABEL": _LABELS[room.name],
        }
    own = {
        "gateway": {
            "RAKKAN_PUBLIC_URL": "http://127.0.0.1:8080",
            "RAKKAN_AUTHENTICATION_URL": "http://localhost:8081",
        },
        "authentication": {"RAKKAN_ISSUER": "http://localhost:8081"},
        "sam": {
            "RAKKAN_WEBAUTHN__RP_ID": "localhost",
            "RAKKAN_WEBAUTHN__ORIGINS": '["http://localhost:8081"]',
        },
    }
    published = {"gateway": [f"127.0.0.1:8080:{HTTP_PORT}"], "authentication": [f"127.0.0.1:8081:{HTTP_PORT}"]}
    ask = f"import urllib.request as u; u.urlopen('http://127.0.0.1:{SIDE_PORT}/readyz', timeout=4)"
    return {
        "build": _build(room.name),
        "image": f"rakkan-{room.host}",
        "user": _USER,
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "tmpfs": ["/tmp"],  # noqa: S108 - a path in the container
        "stop_grace_period": "60s",
        "restart": "unless-stopped",
        "environment": settings | own.get(room.name, {}),
        "volumes": [f"data:{_DATA}"],
        **({"ports": published[room.name]} if room.name in published else {}),
        "depends_on": _after(**conditions),
        "healthcheck": {"test": ["CMD", "python", "-c", ask], "interval": "5s", "timeout": "6s", "retries": 12},
    }
