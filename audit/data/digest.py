"""SHA-256 of what was read, by streaming, so that large data never sits in memory.

One file: the digest of its bytes, as ``sha256sum`` prints it. Several files without names that
matter (IDX images, then labels): of their bytes one after the other. Folders and lists: for each
file its name, its length and its bytes, so that renaming a file is a different data set.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

CHUNK = 1 << 20


class Hash(Protocol):
    """The one method of a hash object that is used here."""

    def update(self, data: bytes, /) -> None:
        """Append to what is hashed."""


def sha256_of(*files: Path) -> str:
    """Digest of the bytes of the files, one after the other."""
    digest = hashlib.sha256()
    for file in files:
        feed(digest, file)
    return digest.hexdigest()


def sha256_named(files: Iterable[tuple[str, Path]]) -> str:
    """Digest over (name, length, bytes) of each file, in the given order."""
    digest = hashlib.sha256()
    for name, file in files:
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
        digest.update(str(file.stat().st_size).encode() + b"\0")
        feed(digest, file)
    return digest.hexdigest()


def feed(digest: Hash, file: Path) -> None:
    """Hash the bytes of one file, a chunk at a time."""
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
