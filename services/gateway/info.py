"""The `info` documents: what every known client can read, and no more than is true. Knows settings and the selection.

Strict clients fix its shape: EUDI Kotlin wants specs "2.2.0.0" and supportedHashTypes; EUDI Swift wants `oauth2`,
strings in algoParams and envelope_properties. Members about documents are required by the standard even where, as here,
only hashes are signed.
"""

from datetime import date
from typing import Any

from services.gateway.csc.algorithms import pss_parameters
from services.gateway.csc.encoding import encode_base64
from services.gateway.csc.facade import Facade
from services.gateway.csc.model import Version
from services.gateway.csc.writing import LANGUAGE
from services.gateway.extension import extensions
from services.gateway.selection import Selection
from services.gateway.settings import Settings
from shared.algorithms import PSS_OID, Hash, KeyAlgorithm, sign_algorithm_oids

OAUTH_METHODS = {
    Version.V1: ("oauth2/authorize", "oauth2/token", "oauth2/revoke"),
    Version.V2: ("oauth2/authorize", "oauth2/pushed_authorize", "oauth2/token", "oauth2/revoke"),
}

SIGNATURE_FORMATS = {
    "formats": ["C", "X", "P", "J"],
    "envelope_properties": [
        ["Detached", "Attached", "Parallel"],
        ["Enveloped", "Enveloping", "Detached"],
        ["Certification", "Revision"],
        ["Detached", "Attached", "Parallel"],
    ],
}


def info_document(facade: Facade, settings: Settings, selection: Selection, *, today: date) -> dict[str, Any]:
    """The answer to `info` (CSC 11.1) in one version, of one virtual service or of all of it.

    `oauth2` is the same everywhere and absolute: a client finds its tokens whatever base URL it was given.
    """
    service = selection.service
    document: dict[str, Any] = {
        "specs": facade.specs,
        "name": settings.name if service is None else service.label,
        "logo": f"{settings.public_url}/logo.png",
        "region": settings.region,
        "lang": LANGUAGE,
        "description": (service.description if service is not None else "") or settings.description,
        "authType": ["oauth2code", "oauth2client"],
        "oauth2": settings.authentication_url,
        "methods": ["info", *_offered(facade, selection), *OAUTH_METHODS[facade.version]],
    }
    document |= _members_of_v2() if facade.version is Version.V2 else {}
    return document | extensions(selection, today=today)


def _offered(facade: Facade, selection: Selection) -> list[str]:
    return [method.name for method in facade.methods if selection.extension or not method.extension]


def _members_of_v2() -> dict[str, Any]:
    algorithms = list(dict.fromkeys(oid for key in KeyAlgorithm for oid in sign_algorithm_oids(key)))
    pss = encode_base64(pss_parameters(Hash.SHA256))
    return {
        "supportsRar": True,
        "supportedHashTypes": ["dtbsr", "sdr"],
        "asynchronousOperationMode": False,
        "validationInfo": False,
        "signAlgorithms": {
            "algos": algorithms,
            # Aligned with algos. The standard has null where there are none, which breaks clients that want strings.
            "algoParams": [pss if oid == PSS_OID else "" for oid in algorithms],
        },
        "signature_formats": SIGNATURE_FORMATS,
        "conformance_levels": ["AdES-B-B"],
    }
