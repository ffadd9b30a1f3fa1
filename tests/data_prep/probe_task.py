"""A task that writes down who does it, in a module that loads as little as a task's should."""

import os
import signal
import sys


class Probe:
    """A task that writes down who does it; what an item says happens."""

    def __init__(self, folder):
        self.folder = folder

    def make(self, item):
        what = item.split(" ")[0]
        if what == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if what == "mistake":
            raise KeyError("a mistake in the program")
        if what != "nothing":
            heavy = [name for name in ("apache_beam", "tensorflow", "jax") if name in sys.modules]
            self.path(item).write_text(f"{os.getppid()} {','.join(heavy)}")

    def path(self, item):
        return self.folder / item

    def done(self, item):
        return self.path(item).exists()

    def seconds(self, item):
        return 60.0

    def died(self, item, died):
        self.path(item).write_text(f"died {died.reason}")
