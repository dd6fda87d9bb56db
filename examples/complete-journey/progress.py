"""A progress line on stderr: redrawn in place on a terminal, a line every few seconds elsewhere."""

import sys
import time
from datetime import datetime


class Progress:
    def __init__(self, total: int):
        self.total = total
        self.done = 0
        self.started = time.monotonic()
        self.terminal = sys.stderr.isatty()
        self.shown = self.started

    def advance(self, steps: int, at: datetime) -> None:
        self.done += steps
        now = time.monotonic()
        if now - self.shown >= (0.2 if self.terminal else 5):
            self.shown = now
            self._show(at)

    def finish(self, at: datetime) -> None:
        self._show(at)
        if self.terminal:
            print(file=sys.stderr)

    def _show(self, at: datetime) -> None:
        elapsed = time.monotonic() - self.started
        rate = self.done / elapsed if elapsed else 0
        left = round((self.total - self.done) / rate) if rate else 0
        text = f"{at:%Y-%m-%d}  {self.done:,} of {self.total:,}  {rate:,.0f}/s  ETA {left // 60}:{left % 60:02}"
        if self.terminal:
            filled = 30 * self.done // max(self.total, 1)
            print(f"\r[{'#' * filled}{'.' * (30 - filled)}] {text}\x1b[K", end="", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)
