"""The Kubernetes manifests of `k8s/`: one Deployment for each room, and who may talk to whom on the network.

Rooms talk to each other through the broker alone, so a policy opens the broker, a room's own database, and doors.
"""

from collections.abc import Mapping
from typing import Any

from deploy.manifests.rooms import HTTP_PORT, SECRETS, SIDE_PORT, TRUST, UID, Room, rooms
from deploy.manifests.yaml import dump

HEAD = "# Written by `python -m deploy.manifests --write` from shared/messaging/topology.py. Do not edit.\n"
_NOTHING_MORE = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
_GRACE_S = 60
_TOKEN_MOUNT = {"name": "hsm", "mountPath": "/var/run/rakkan/hsm"}


def base() -> dict[str, str]:
    """File name in k8s/base to its text."""
    files = {f"{room.host}.yaml": _head(dump(*_room(room))) for room in rooms()}
    files["network.yaml"] = _head(dump(_deny_all(), *(_policy(room) for room in rooms())))
    files["kustomization.yaml"] = _head(
        dump(
            {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "labels": [{"pairs": {"app.kubernetes.io/part-of": "rakkan"}, "includeSelectors": False}],
                "resources": sorted(files),
            }
        )
    )
    return files


def _head(text: str) -> str:
    return HEAD + text


def _meta(name: str, room: Room | None = None, **more: Any) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": room.host} if room else {}
    return {"name": name, **({"labels": labels} if labels else {}), **more}


def _room(room: Room) -> list[Mapping[str, Any]]:
    documents: list[Mapping[str, Any]] = [_deployment(room), _disruption(room)]
    if room.has_door:
        documents.append(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": _meta(room.host, room),
                "spec": {
                    "selector": {"app.kubernetes.io/name": room.host},
                    "ports": [{"name": "http", "port": HTTP_PORT, "targetPort": "http"}],
                },
            }
        )
    return documents


def _deployment(room: Room) -> Mapping[str, Any]:
    annotations = {"prometheus.io/scrape": "true", "prometheus.io/port": str(SIDE_PORT)}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _meta(room.host, room),
        "spec": {
            "replicas": 2,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "selector": {"matchLabels": {"app.kubernetes.io/name": room.host}},
            "template": {
                "metadata": {"labels": {"app.kubernetes.io/name": room.host}, "annotations": annotations},
                "spec": _pod(room),
            },
        },
    }


def _pod(room: Room) -> Mapping[str, Any]:
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _GRACE_S,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": UID,
            "runAsGroup": UID,
            "fsGroup": UID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(room)],
        "volumes": [
            {"name": "secrets", "secret": {"secretName": f"rakkan-{room.host}", "defaultMode": 0o440}},
            {"name": "trust", "configMap": {"name": "rakkan-trust"}},
            {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
            *([{"name": "hsm", "emptyDir": {}}] if room.has_token else []),
        ],
    }


def _container(room: Room) -> Mapping[str, Any]:
    ports = [{"name": "side", "containerPort": SIDE_PORT}]
    if room.has_door:
        ports.append({"name": "http", "containerPort": HTTP_PORT})
    return {
        "name": room.host,
        "image": f"rakkan-{room.host}",
        "ports": ports,
        "env": [{"name": name, "value": value} for name, value in room.settings().items()],
        # Addresses, and what differs from one installation to the next: an overlay makes these.
        "envFrom": [{"configMapRef": {"name": f"rakkan-{room.host}"}}],
        "securityContext": _NOTHING_MORE,
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "startupProbe": _probe("/healthz", every_s=2, failures=60),
        "livenessProbe": _probe("/healthz", every_s=10, failures=3),
        "readinessProbe": _probe("/readyz", every_s=5, failures=2),
        # Endpoints forget the pod before it stops listening.
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "5"]}}},
        "volumeMounts": [
            {"name": "secrets", "mountPath": SECRETS, "readOnly": True},
            {"name": "trust", "mountPath": TRUST, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a path in the container
            *([_TOKEN_MOUNT] if room.has_token else []),
        ],
    }


def _probe(path: str, *, every_s: int, failures: int) -> Mapping[str, Any]:
    get = {"path": path, "port": "side"}
    return {"httpGet": get, "periodSeconds": every_s, "timeoutSeconds": 4, "failureThreshold": failures}


def _disruption(room: Room) -> Mapping[str, Any]:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _meta(room.host, room),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app.kubernetes.io/name": room.host}}},
    }


def _deny_all() -> Mapping[str, Any]:
    return _network_policy("default-deny", {}, {"policyTypes": ["Ingress", "Egress"]})


def _policy(room: Room) -> Mapping[str, Any]:
    monitoring = {"namespaceSelector": {"matchLabels": {"rakkan.example/monitoring": "true"}}}
    ingress = [{"from": [monitoring], "ports": [_tcp(SIDE_PORT)]}]
    if room.has_door:
        entry = {"namespaceSelector": {"matchLabels": {"rakkan.example/ingress": "true"}}}
        ingress.append({"from": [entry], "ports": [_tcp(HTTP_PORT)]})
    egress: list[Mapping[str, Any]] = [
        {
            "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}],
            "ports": [{"protocol": "UDP", "port": 53}, _tcp(53)],
        },
        _to("rabbitmq", 5671, 5672),
    ]
    if room.has_database:
        egress.append(_to("postgresql", 5432))
    if room.has_token:
        egress.append(_to("hsm", 1792, 5696))  # a network HSM; name your own ports in an overlay
    if room.calls_outside:
        egress.append({"ports": [_tcp(80), _tcp(443)]})
    spec = {"policyTypes": ["Ingress", "Egress"], "ingress": ingress, "egress": egress}
    return _network_policy(room.host, {"matchLabels": {"app.kubernetes.io/name": room.host}}, spec)


def _network_policy(name: str, selector: Mapping[str, Any], spec: Mapping[str, Any]) -> Mapping[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {"podSelector": selector, **spec},
    }


def _to(role: str, *ports: int) -> Mapping[str, Any]:
    return {
        "to": [{"podSelector": {"matchLabels": {"rakkan.example/role": role}}}],
        "ports": [_tcp(port) for port in ports],
    }


def _tcp(port: int) -> Mapping[str, Any]:
    return {"protocol": "TCP", "port": port}
