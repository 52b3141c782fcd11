"""Tells the person at the terminal what is happening and how long it took. Knows nothing of what it tells about."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Progress:
    """Lines on standard error, so that what a command prints on standard output stays its result."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._lock = threading.Lock()

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """One line; on a terminal the seconds tick while it lasts."""
        began = time.monotonic()
        done = threading.Event()
        ticker = threading.Thread(target=self._tick, args=(what, began, done), daemon=True)
        if self._terminal:
            ticker.start()
        sign = "✗"
        try:
            yield
            sign = "✓"
        finally:
            done.set()
            if self._terminal:
                ticker.join()
            self._line(f"  {sign} {what}  {time.monotonic() - began:.1f} s")

    def say(self, text: str = "") -> None:
        self._line(text)

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    def _tick(self, what: str, began: float, done: threading.Event) -> None:
        while not done.wait(0.5):
            with self._lock:
                sys.stderr.write(f"\r  … {what}  {time.monotonic() - began:.0f} s ")
                sys.stderr.flush()

    def _line(self, text: str) -> None:
        with self._lock:
            if self._terminal:
                sys.stderr.write("\r\033[K")
            sys.stderr.write(text + "\n")
            sys.stderr.flush()
