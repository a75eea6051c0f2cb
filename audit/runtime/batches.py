"""How many samples are attacked together: found by trying, halved where memory runs out.

A sample's result never depends on the batch it is in, so this changes time and memory only.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from audit.errors import UsageError, out_of_memory


@dataclass
class Batches:
    """The size of a batch; it only ever shrinks.

    Attributes:
        size: samples at once.
    """

    size: int

    def each(self, rows: Tensor, run: Callable[[Tensor], None]) -> None:
        """Call ``run`` on batches of the rows, smaller ones after memory ran out.

        Raises:
            UsageError: not even one sample fits.
        """
        while len(rows):
            chosen = rows[: self.size]
            try:
                run(chosen)
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                if len(chosen) == 1:
                    raise UsageError(
                        "Memory runs out for a single sample: use a machine with more of it, or "
                        "--device cpu."
                    ) from error
                self.size = len(chosen) // 2
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                continue
            rows = rows[len(chosen) :]
