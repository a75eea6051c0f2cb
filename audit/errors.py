"""Every way the user's input can be wrong, as one exception family that the CLI catches once."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

LOG = logging.getLogger(__name__)


class AuditError(Exception):
    """A problem the user can mend: the message says what was found, what was expected, what to do.

    Attributes:
        exit_code: process exit status the CLI returns for it.
    """

    exit_code: ClassVar[int] = 2


class UsageError(AuditError):
    """An option, or a combination of options, is wrong."""


class ModelError(AuditError):
    """The model file is missing, broken, untrusted or of a kind that cannot be audited."""


class UnsupportedOperator(ModelError):
    """The importer does not know an operator or a variant; names node, operator, opset."""


class DataError(AuditError):
    """The data cannot be read, or does not fit the model."""


class NothingToEvaluate(AuditError):
    """There is no sample to attack: the data is empty, or no sample is classified correctly."""

    exit_code = 5


class NothingKept(AuditError):
    """Hardening found no weights with the clean accuracy that was asked for."""

    exit_code = 1


class GateFailed(AuditError, AssertionError):
    """A report does not meet a condition that was required of it."""

    exit_code = 1


class Interrupted(AuditError):
    """The user stopped the program before there was anything to report."""

    exit_code = 130


class InternalError(AuditError):
    """A contradiction that only a bug of ours can cause, e.g. a certificate above an attack."""

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
    """Describe an exception in one line: our own by their message, others with their type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = lines[0][:300].rstrip(".") if lines else ""
    if isinstance(error, AuditError) and message:
        return message
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


@dataclass(frozen=True)
class contained:
    """Let an error end a block alone instead of the scan: ``with contained(what, tell): ...``.

    A contradiction that only a bug of ours can cause (`InternalError`), and a request to stop, go
    on as they are.

    Attributes:
        what: the part that may fail, for the log.
        tell: receives what the error said, in one line.
    """

    what: str
    tell: Callable[[str], None]

    def __enter__(self) -> None:
        """Begin the block."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> bool:
        """End the block; True where an error was told of and goes no further."""
        if not isinstance(error, Exception) or isinstance(error, InternalError):
            return False
        LOG.debug("%s failed.", self.what, exc_info=error)
        self.tell(explained(error))
        return True
