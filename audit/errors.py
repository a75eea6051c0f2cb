"""Exceptions for invalid input, which the command line catches in one place."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

LOG = logging.getLogger(__name__)


class AuditError(Exception):
    """Problem that the user can fix; the message states the finding, the expectation and the fix.

    Attributes:
        exit_code: exit status of the command line.
    """

    exit_code: ClassVar[int] = 2


class UsageError(AuditError):
    """Invalid option, or invalid combination of options."""


class ModelError(AuditError):
    """Model that is missing, damaged, untrusted, or of a kind that cannot be audited."""


class UnsupportedOperator(ModelError):
    """Operator, or variant of an operator, that the ONNX importer does not support.

    The message names the node, the operator and the opset.
    """


class DataError(AuditError):
    """Data that cannot be read or does not fit the model."""


class NothingToEvaluate(AuditError):
    """Scan without samples: the data is empty, or no sample is classified correctly."""

    exit_code = 5


class NothingKept(AuditError):
    """Hardening run that found no weights with the required clean accuracy."""

    exit_code = 1


class GateFailed(AuditError, AssertionError):
    """Report that does not meet a required condition."""

    exit_code = 1


class Interrupted(AuditError):
    """Interrupt by the user before there was anything to report."""

    exit_code = 130


class InternalError(AuditError):
    """Contradiction that only a bug can cause, such as a certified radius above an attacked one."""

    exit_code = 3


@contextmanager
def interruptible(stage: str) -> Iterator[None]:
    """Convert Ctrl-C into `Interrupted` with a message.

    Args:
        stage: completes "Interrupted …", for example ``before the first step of training``.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"Interrupted {stage}.") from None


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out.

    Python and the GPU have an exception class for it (`torch.OutOfMemoryError`, recognised by its
    name, since this module does not import torch); the CPU allocator states it in the message.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return "can't allocate memory" in str(error) or "not enough memory" in str(error)


def explained(error: BaseException) -> str:
    """Return one line on an exception: the message of an `AuditError`, for others with the type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = lines[0][:300].rstrip(".") if lines else ""
    if isinstance(error, AuditError) and message:
        return message
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


@dataclass(frozen=True)
class contained:
    """Block whose failure does not end the scan: ``with contained(what, tell): ...``.

    `InternalError` and `KeyboardInterrupt` are raised as usual.

    Attributes:
        what: the part that may fail, for the log.
        tell: receives the error as one line of text.
    """

    what: str
    tell: Callable[[str], None]

    def __enter__(self) -> None:
        """Enter the block."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> bool:
        """Leave the block; return True if an error was handled."""
        if not isinstance(error, Exception) or isinstance(error, InternalError):
            return False
        LOG.debug("%s failed.", self.what, exc_info=error)
        self.tell(explained(error))
        return True
