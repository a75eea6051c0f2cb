"""SHA-256 of the files of a data set, read in chunks, so that large files are not held in memory.

The digest of one file is that of its bytes, as ``sha256sum`` prints it. The digest of several files
whose names do not matter (IDX images, then labels) is that of their concatenated bytes. For folders
and lists it covers the name, the length and the bytes of each file, so renaming a file changes it.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

CHUNK = 1 << 20


class Hash(Protocol):
    """Interface of a hash object, with the one method that is used here."""

    def update(self, data: bytes, /) -> None:
        """Add bytes to the hashed data."""


def sha256_of(*files: Path) -> str:
    """Return the digest of the concatenated bytes of the files."""
    digest = hashlib.sha256()
    for file in files:
        feed(digest, file)
    return digest.hexdigest()


def sha256_named(files: Iterable[tuple[str, Path]]) -> str:
    """Return the digest over (name, length, bytes) of each file, in the given order."""
    digest = hashlib.sha256()
    for name, file in files:
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
        digest.update(str(file.stat().st_size).encode() + b"\0")
        feed(digest, file)
    return digest.hexdigest()


def feed(digest: Hash, file: Path) -> None:
    """Add the bytes of one file to the digest, one chunk at a time."""
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
