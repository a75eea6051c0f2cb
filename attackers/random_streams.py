"""Random numbers keyed by a sample, not by its position in a batch.

One stream per sample, keyed by its content: results are the same for every batch size,
every order of the samples and every device, and a per-sample attack stays a function of the
sample alone, which is what the finite-sample intervals assume.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class SampleGenerator:
    """Independent, stateless random streams, one per sample of a batch.

    Drawing twice gives the same numbers: derive a new generator with `fold` for each new purpose.

    Attributes:
        keys: one integer in [0, 2**63) per sample.
    """

    keys: tuple[int, ...]

    @classmethod
    def seeded(cls, contents: Iterable[bytes], seed: int) -> Self:
        """Key each sample by its content and the user's seed."""
        return cls(tuple(_stream_key(content, seed.to_bytes(8, "little")) for content in contents))

    def __len__(self) -> int:
        return len(self.keys)

    def fold(self, purpose: str) -> Self:
        """Derive streams for a named purpose, independent of these."""
        tag = purpose.encode()
        return type(self)(tuple(_stream_key(key.to_bytes(8, "little"), tag) for key in self.keys))

    def folds(self, purposes: Iterable[str]) -> Self:
        """Concatenate the streams of several purposes, all samples of the first one first."""
        return type(self)(tuple(key for purpose in purposes for key in self.fold(purpose).keys))

    def take(self, rows: Tensor) -> Self:
        """Select the streams of the given rows; ``rows``: (K,) int64."""
        return type(self)(tuple(self.keys[row] for row in rows.tolist()))

    def uniform(self, like: Tensor) -> Tensor:
        """Draw uniform numbers in [0, 1) of the shape, dtype, device of ``like`` (B, ...)."""
        return self._draw(torch.rand, like)

    def normal(self, like: Tensor) -> Tensor:
        """Draw standard normal numbers of the shape, dtype and device of ``like`` (B, ...)."""
        return self._draw(torch.randn, like)

    def _draw(self, draw: object, like: Tensor) -> Tensor:
        assert callable(draw)
        out = torch.empty(like.shape, dtype=torch.float32)
        for row, key in zip(out, self.keys, strict=True):
            row.copy_(draw(row.shape, generator=torch.Generator().manual_seed(key)))
        return out.to(like)


def _stream_key(content: bytes, salt: bytes) -> int:
    digest = blake2b(content, digest_size=8, key=salt[:64]).digest()
    return int.from_bytes(digest, "little") >> 1
