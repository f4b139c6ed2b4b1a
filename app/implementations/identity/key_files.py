"""Files of secrets under the instance folder: private, whole or not at all, and made once."""

import os
import tempfile
from pathlib import Path


def make_key_file(key_file: Path, key: bytes) -> None:
    """Never over another's: of two processes that start at once both read one key."""
    key_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = new_key_file(key_file, key)
    try:
        key_file.hardlink_to(temporary)  # a rename would replace the key that another has already read
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


def new_key_file(key_file: Path, key: bytes) -> Path:
    """One beside it, to be renamed."""
    descriptor, name = tempfile.mkstemp(dir=key_file.parent, prefix=f".{key_file.name}.")  # mode 0600
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    return Path(name)
