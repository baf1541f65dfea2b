"""What the command line says: data on stdout, narration on stderr, a sign of life for anything over a second."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

_PATIENCE_SECONDS = 1.0


@dataclass(frozen=True)
class Console:
    """quiet: say nothing but errors and, with `json`, the data; json: print data as JSON instead of text."""

    quiet: bool = False
    json: bool = False

    def show(self, text: str, data: Any) -> None:
        """Print a result: the data as JSON if that was asked for, else the text."""
        if self.json:
            print(json.dumps(data, indent=2, allow_nan=False, default=str))
        elif not self.quiet:
            print(text)

    def say(self, text: str) -> None:
        """Tell the user something that is not a result."""
        if not self.quiet:
            print(text, file=sys.stderr)

    @contextmanager
    def working(self, what: str) -> Iterator[None]:
        """Show `what` with a spinner while the block runs, once that takes over a second and someone is watching."""
        if self.quiet or not sys.stderr.isatty():
            yield
            return
        from rich.console import Console as RichConsole

        status = RichConsole(stderr=True).status(what)
        lock, done = threading.Lock(), False

        def start() -> None:
            with lock:
                if not done:
                    status.start()

        timer = threading.Timer(_PATIENCE_SECONDS, start)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            with lock:
                done = True
                status.stop()
