"""Example requests and answers for the documentation page. No secret, no real key; the tests read them."""

from typing import Any

_SHA256_OID = "2.16.840.1.101.3.4.2.1"
_HASH = "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="
_SAD = "1CpTM9n0vTuYkW2w"

CREDENTIAL: dict[str, Any] = {"credentialID": "demo"}
LIST: dict[str, Any] = {"userID": "hanako"}
LIST_ANSWER: dict[str, Any] = {"credentialIDs": ["demo"]}
INFO: dict[str, Any] = {"credentialID": "demo", "certificates": "chain", "certInfo": True, "authInfo": True}
_KEY: dict[str, Any] = {
    "status": "enabled",
    "algo": ["1.2.840.10045.2.1", "1.2.840.10045.4.3.2"],
    "len": 256,
    "curve": "1.2.840.10045.3.1.7",
}
_CERTIFICATE: dict[str, Any] = {
    "status": "valid",
    "certificates": ["MIIB…"],
    "issuerDN": "CN=Issuing CA,O=Example,C=JP",
    "serialNumber": "5AAC41CD8FA22B953640",
    "subjectDN": "CN=Hanako,C=JP",
    "validFrom": "20260101000000Z",
    "validTo": "20270101000000Z",
}
INFO_ANSWER_V1: dict[str, Any] = {
    "key": _KEY,
    "cert": _CERTIFICATE,
    "authMode": "explicit",
    "PIN": {"presence": "true", "format": "A", "label": "PIN"},
    "OTP": {"presence": "false"},
    "SCAL": "1",
    "multisign": 100,
    "lang": "en",
}
INFO_ANSWER_V2: dict[str, Any] = {
    "key": _KEY,
    "cert": _CERTIFICATE,
    "auth": {"mode": "explicit", "expression": "PIN", "objects": [{"type": "Password", "id": "PIN", "format": "A"}]},
    "SCAL": "1",
    "multisign": 100,
    "lang": "en",
}
AUTHORIZE_V1: dict[str, Any] = {"credentialID": "demo", "numSignatures": 1, "hash": [_HASH], "PIN": "…"}
AUTHORIZE_V2: dict[str, Any] = {
    "credentialID": "demo",
    "numSignatures": 1,
    "hashes": [_HASH],
    "hashAlgorithmOID": _SHA256_OID,
    "authData": [{"id": "PIN", "value": "…"}],
}
SAD_ANSWER: dict[str, Any] = {"SAD": _SAD, "expiresIn": 300}
EXTEND: dict[str, Any] = {"credentialID": "demo", "SAD": _SAD}
CHALLENGE: dict[str, Any] = {"credentialID": "demo", "authObjectID": "OTP"}
SIGN_V1: dict[str, Any] = {
    "credentialID": "demo",
    "SAD": _SAD,
    "hash": [_HASH],
    "signAlgo": "1.2.840.10045.4.3.2",
}
SIGN_V2: dict[str, Any] = {
    "credentialID": "demo",
    "SAD": _SAD,
    "hashes": [_HASH],
    "hashAlgorithmOID": _SHA256_OID,
    "signAlgo": "1.2.840.10045.4.3.2",
}
SIGN_ANSWER: dict[str, Any] = {"signatures": ["MEUCIQ…"]}
CREATE: dict[str, Any] = {
    "credentialCreationRequest": {
        "certificatePolicy": "2.999.3647.1",
        "certificationAuthority": "local",
        "certificateProfile": "signing",
    },
    "userID": "hanako",
    "credentialInfo": False,
}
CREATE_ANSWER: dict[str, Any] = {"credentialID": "c0123456789abcdef01234567"}
CREATE_CHECK: dict[str, Any] = {"handle": "c0123456789abcdef01234567"}
DELETE: dict[str, Any] = {"credentialDeletionRequest": {"credentialID": "demo", "revoke": True, "revocationReason": 5}}
CSR_ANSWER: dict[str, Any] = {"csr": "MIIB…", "keyOrigin": "M2Y0…"}
CERTIFICATE: dict[str, Any] = {"credentialID": "demo", "certificates": ["MIIB"]}
TIMESTAMP: dict[str, Any] = {
    "hash": _HASH,
    "hashAlgo": _SHA256_OID,
    "nonce": "0a1b2c3d4e5f6071",
    "timeStampingAuthority": "clock-1",
    "reqPolicy": "2.999.3161.1",
    "certReq": True,
}
TIMESTAMP_ANSWER: dict[str, Any] = {"timestamp": "MIIG…", "timeStampingAuthority": "clock-1"}
