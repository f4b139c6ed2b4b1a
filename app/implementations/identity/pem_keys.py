"""RS256's and EdDSA's keys, from PEM files: a private one signs, and anybody may verify with the public ones."""

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from jwt.algorithms import OKPAlgorithm, RSAAlgorithm

from app.core.errors import Conflict, Invalid
from app.implementations.identity.tokens import Key, SigningKeys

LEAST_RSA_BITS = 2048  # RFC 7518 § 3.3
THUMBPRINTED = {"RSA": ("e", "kty", "n"), "OKP": ("crv", "kty", "x")}  # RFC 7638 § 3.2, RFC 8037 § 2
PublicKey = RSAPublicKey | Ed25519PublicKey


class PemKeys(SigningKeys):
    """Signs with the private key in ``key_file``; those in ``old_public_key_files`` only verify.

    A key is of one algorithm, its type's, whatever a token's header says. ``Invalid`` for what cannot be used.
    """

    def __init__(self, algorithm: str, key_file: Path, old_public_key_files: Sequence[Path] = ()) -> None:
        private = _private(key_file)
        public = private.public_key()
        jwk = _jwk(public, "signing_key_file")
        if jwk["alg"] != algorithm:
            raise _unusable("signing_key_file", f"its key is one for {jwk['alg']}, not for SIGNING_ALGORITHM")
        old = [_public(path) for path in old_public_key_files]
        self._jwks = {jwk["kid"]: jwk} | {one["kid"]: one for one in (_jwk(key, _OLD) for key in old)}
        self._signing = Key(jwk["kid"], algorithm, private, public)
        self._keys = {one.kid: one for one in (*map(_verifying, old), self._signing)}

    def signing(self) -> Key:
        return self._signing

    def verifying(self, kid: str) -> Key | None:
        return self._keys.get(kid)

    def public(self) -> Sequence[Mapping[str, Any]]:
        return list(self._jwks.values())

    def rotate(self) -> str:
        message = "SIGNING_KEY_FILE is set: name a new one there, and the old public key in OLD_PUBLIC_KEY_FILES"
        raise Conflict(message, code="key_is_configured")


_OLD = "old_public_key_files"


def _private(path: Path) -> RSAPrivateKey | Ed25519PrivateKey:
    try:
        key = load_pem_private_key(_read(path, "signing_key_file"), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it wants a password
        raise _unusable("signing_key_file", "is no private key in PEM without a password") from None
    if not isinstance(key, RSAPrivateKey | Ed25519PrivateKey):
        raise _unusable("signing_key_file", "its key is neither RSA nor Ed25519")
    return key


def _public(path: Path) -> PublicKey:
    try:
        key = load_pem_public_key(_read(path, _OLD))
    except (ValueError, UnsupportedAlgorithm):
        raise _unusable(_OLD, f"{path.name} is no public key in PEM") from None
    if not isinstance(key, RSAPublicKey | Ed25519PublicKey):
        raise _unusable(_OLD, f"{path.name} is neither RSA nor Ed25519")
    return key


def _read(path: Path, setting: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unusable(setting, f"{path.name} cannot be read ({error.strerror})") from None


def _verifying(key: PublicKey) -> Key:
    jwk = _jwk(key, _OLD)
    return Key(jwk["kid"], jwk["alg"], None, key)


def _jwk(key: PublicKey, setting: str) -> dict[str, Any]:
    """RFC 7517's form of it; its ``kid`` is the thumbprint of RFC 7638."""
    if isinstance(key, RSAPublicKey):
        if key.key_size < LEAST_RSA_BITS:
            raise _unusable(setting, f"an RSA key of {key.key_size} bits is weak: make one of {LEAST_RSA_BITS}")
        algorithm, jwk = "RS256", RSAAlgorithm.to_jwk(key, as_dict=True)
    else:
        algorithm, jwk = "EdDSA", OKPAlgorithm.to_jwk(key, as_dict=True)
    needed = {name: jwk[name] for name in THUMBPRINTED[jwk["kty"]]}
    canonical = json.dumps(needed, sort_keys=True, separators=(",", ":")).encode()
    kid = urlsafe_b64encode(sha256(canonical).digest()).rstrip(b"=").decode()
    return {**needed, "kid": kid, "use": "sig", "alg": algorithm}


def _unusable(setting: str, why: str) -> Invalid:
    return Invalid(f"configuration: {setting}: {why}")
