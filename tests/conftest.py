"""What all tests have in common."""

from __future__ import annotations

import signal
import threading


def pytest_configure() -> None:
    """What a shell starts in the background ignores interrupts, and so would everything that tests interrupt."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
