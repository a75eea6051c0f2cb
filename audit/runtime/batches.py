"""Number of samples attacked together, which is halved whenever memory runs out.

A sample's result never depends on its batch, so the number affects time and memory only.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from audit.errors import UsageError, out_of_memory


@dataclass
class Batches:
    """Size of the batches, which only decreases.

    Attributes:
        size: number of samples per batch.
    """

    size: int

    def each(self, rows: Tensor, run: Callable[[Tensor], None]) -> None:
        """Call ``run`` on batches of the rows, on smaller ones after memory ran out.

        Raises:
            UsageError: there is not enough memory for a single sample.
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
                        "There is not enough memory for a single sample: use a machine with more "
                        "memory, or --device cpu."
                    ) from error
                self.size = len(chosen) // 2
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                continue
            rows = rows[len(chosen) :]
