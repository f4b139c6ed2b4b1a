"""Secrets in the database are encrypted: a copy of it alone signs nothing."""

import secrets
from base64 import urlsafe_b64encode
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app.core.errors import Unavailable
from app.core.interfaces.webhooks import SecretBox
from app.implementations.identity.key_files import make_key_file

KEY_BYTES = 32


class FernetBox(SecretBox):
    """With ``key``, else with the one in ``key_file``, which the first process to need it makes.

    Not with the key of access tokens: that is rotated, and this one has to read what is years old.
    """

    def __init__(self, key: str | None, key_file: Path) -> None:
        self._key = key
        self._file = key_file

    def seal(self, secret: str) -> str:
        return self._fernet().encrypt(secret.encode()).decode()

    def open(self, sealed: str) -> str:
        try:
            return self._fernet().decrypt(sealed).decode()
        except InvalidToken:
            message = "the webhook's secret was sealed with another ENCRYPTION_KEY: rotate it"
            raise Unavailable(message, code="secret_unreadable") from None

    def _fernet(self) -> Fernet:
        if self._key is not None:
            given = self._key.encode()
        else:
            if not self._file.exists():
                make_key_file(self._file, secrets.token_bytes(KEY_BYTES))
            given = self._file.read_bytes()
        derived = HKDF(SHA256(), 32, salt=None, info=b"llm-finetuning secrets").derive(given)
        return Fernet(urlsafe_b64encode(derived))
