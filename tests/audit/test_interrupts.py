"""Requests to stop: both signals, several at once, and those that the parent has silenced."""

import signal

import pytest

from audit.runtime.interrupts import SIGNALS, heard


@pytest.mark.parametrize("number", SIGNALS)
def test_both_signals_interrupt(number: signal.Signals) -> None:
    """Also where these tests run in the background of a shell, which has SIGINT ignored."""
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = signal.signal(number, handlers[number])
    try:
        with heard(), pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        assert signal.getsignal(number) == handlers[number]
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("second", SIGNALS)
def test_a_second_request_at_once_is_the_same(second: signal.Signals) -> None:
    with heard(grace=3600):
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(second)


def test_a_later_request_counts() -> None:
    with heard(grace=0):
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)


def test_a_silenced_signal_stays_silent() -> None:
    """A shell without job control has its background ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with heard():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
