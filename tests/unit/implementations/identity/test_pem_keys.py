"""RS256 and EdDSA: the key of a PEM file signs, old public ones verify, and a weak or unreadable one is no key."""

import json
import subprocess

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from app.bootstrap import SettingsError, load_settings
from app.core.errors import Conflict, Invalid, Unauthorized
from app.implementations.identity.pem_keys import PemKeys
from app.implementations.identity.tokens import JwtIssuer

MAKE = {
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


def write(folder, name, key, encryption=None):
    """``name.pem`` and ``name.pub.pem``"""
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())
    (folder / f"{name}.pem").write_bytes(private)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pub.pem").write_bytes(public)
    return folder / f"{name}.pem", folder / f"{name}.pub.pem"


@pytest.mark.parametrize("algorithm", MAKE)
def test_others_verify_with_what_is_public(tmp_path, algorithm):
    private, _ = write(tmp_path, "now", MAKE[algorithm]())
    issuer = JwtIssuer(PemKeys(algorithm, private))
    token = issuer.issue({"sub": "someone"}, 60)
    assert issuer.verify(token)["sub"] == "someone"
    (shown,) = json.loads(json.dumps(issuer.public_keys()))
    assert shown["kid"] == jwt.get_unverified_header(token)["kid"]
    assert not {"d", "p", "q", "k"} & shown.keys()
    claims = jwt.decode(token, jwt.PyJWK(shown), [algorithm], audience="llm-finetuning-api")
    assert claims["sub"] == "someone"


def test_the_thumbprint_is_that_of_rfc_8037(tmp_path):
    """Appendix A.1 and A.3."""
    d = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    private, _ = write(tmp_path, "rfc", ed25519.Ed25519PrivateKey.from_private_bytes(d))
    (shown,) = PemKeys("EdDSA", private).public()
    assert shown["x"] == "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    assert shown["kid"] == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_the_old_public_key_verifies_and_signs_no_more(tmp_path):
    old, old_public = write(tmp_path, "old", MAKE["RS256"]())
    new, _ = write(tmp_path, "new", MAKE["EdDSA"]())
    before = JwtIssuer(PemKeys("RS256", old)).issue({"sub": "someone"}, 60)
    now = JwtIssuer(PemKeys("EdDSA", new, [old_public]))
    assert now.verify(before)["sub"] == "someone"
    assert [key["alg"] for key in now.public_keys()] == ["EdDSA", "RS256"]
    assert jwt.get_unverified_header(now.issue({"sub": "x"}, 60))["alg"] == "EdDSA"
    with pytest.raises(Unauthorized):
        JwtIssuer(PemKeys("EdDSA", new)).verify(before)
    with pytest.raises(Conflict, match="OLD_PUBLIC_KEY_FILES"):
        now.rotate()


@pytest.mark.parametrize(
    "content", [b"", b"not a key", b"-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----"]
)
def test_what_is_no_key(tmp_path, content):
    (tmp_path / "bad.pem").write_bytes(content)
    with pytest.raises(Invalid, match="signing_key_file: is no private key"):
        PemKeys("RS256", tmp_path / "bad.pem")


def test_keys_that_are_refused_with_words(tmp_path):
    def fault(name, key=None, algorithm="RS256", old=(), **how):
        path = tmp_path / f"{name}.pem"
        if key is not None:
            path, _ = write(tmp_path, name, key, **how)
        with pytest.raises(Invalid) as caught:
            PemKeys(algorithm, path, old)
        return caught.value.message

    sound, weak = MAKE["RS256"](), rsa.generate_private_key(65537, 1024)
    assert "1024 bits is weak" in fault("weak", weak)
    assert "one for RS256, not for SIGNING_ALGORITHM" in fault("other", sound, "EdDSA")
    assert "neither RSA nor Ed25519" in fault("curve", ec.generate_private_key(ec.SECP256R1()))
    assert "without a password" in fault("locked", sound, encryption=BestAvailableEncryption(b"word"))
    assert "cannot be read" in fault("gone")
    assert "old_public_key_files: an RSA key of 1024 bits" in fault("s", sound, old=[tmp_path / "weak.pub.pem"])
    assert "is no public key" in fault("s", sound, old=[tmp_path / "s.pem"])


def test_a_key_that_openssl_made(tmp_path):
    path = tmp_path / "key.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(path)], check=True)
    assert JwtIssuer(PemKeys("EdDSA", path)).issue({"sub": "x"}, 60)


def test_an_algorithm_and_its_key_go_together(tmp_path):
    with pytest.raises(SettingsError, match="signing_key_file: RS256 wants a private key"):
        load_settings(signing_algorithm="RS256")
    with pytest.raises(SettingsError, match="signing_algorithm: HS256"):
        load_settings(signing_key_file=tmp_path / "key.pem")
