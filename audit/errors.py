"""Exceptions for everything that can be wrong with the user's input; the CLI catches them once."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

LOG = logging.getLogger(__name__)


class AuditError(Exception):
    """A problem that the user can fix: what was found, what was expected, what to do.

    Attributes:
        exit_code: exit status of the command line.
    """

    exit_code: ClassVar[int] = 2


class UsageError(AuditError):
    """An invalid option, or an invalid combination of options."""


class ModelError(AuditError):
    """A model that is missing, broken, untrusted, or of a kind that cannot be audited."""


class UnsupportedOperator(ModelError):
    """An operator, or a variant of one, that the ONNX importer does not know.

    The message names the node, the operator and the opset.
    """


class DataError(AuditError):
    """Data that cannot be read, or does not fit the model."""


class NothingToEvaluate(AuditError):
    """A scan without samples: the data is empty, or no sample is classified correctly."""

    exit_code = 5


class NothingKept(AuditError):
    """A hardening run that found no weights with the clean accuracy asked for."""

    exit_code = 1


class GateFailed(AuditError, AssertionError):
    """A report does not meet a condition that was required of it."""

    exit_code = 1


class Interrupted(AuditError):
    """An interrupt by the user before there was anything to report."""

    exit_code = 130


class InternalError(AuditError):
    """A contradiction that only a bug here can cause, e.g. a certificate above an attack."""

    exit_code = 3


@contextmanager
def interruptible(stage: str) -> Iterator[None]:
    """Turn Ctrl-C into `Interrupted` with a sentence.

    Args:
        stage: completes "Interrupted …", for example ``before the first step of training``.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"Interrupted {stage}.") from None


def out_of_memory(error: BaseException) -> bool:
    """Tell whether memory ran out.

    Python and the GPU have a class for it (`torch.OutOfMemoryError`, known here by its name, as
    this module does not import torch); the CPU's allocator says so in words.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return "can't allocate memory" in str(error) or "not enough memory" in str(error)


def explained(error: BaseException) -> str:
    """Describe an exception in one line: an `AuditError` by its message, others with their type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = lines[0][:300].rstrip(".") if lines else ""
    if isinstance(error, AuditError) and message:
        return message
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


@dataclass(frozen=True)
class contained:
    """A block whose failure does not end the scan: ``with contained(what, tell): ...``.

    `InternalError` and requests to stop (`KeyboardInterrupt`) are raised as usual.

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
        """Leave the block; return True where an error was handled."""
        if not isinstance(error, Exception) or isinstance(error, InternalError):
            return False
        LOG.debug("%s failed.", self.what, exc_info=error)
        self.tell(explained(error))
        return True
