"""Memory that one step gives back, kept for the next.

XLA asks for a program's scratch memory anew at each call, and Eigen, which it multiplies with, for
each large product. The GNU C library maps such blocks from the system and unmaps them when they are
freed, so that the system clears every page again: 800,000 page faults and a seventh of the
processor time of a training step of the published networks (two cores, 2 x 16 frames).
"""

import ctypes
import sys

# <malloc.h>, which Python does not know.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Lets the whole process use again what it has freed, instead of giving it back at once.

    For commands, which own their process; a library leaves that to its caller. The process then
    stays as large as it once was, until it ends.

    Returns:
        whether the C library took the settings; only GNU's does.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    # One heap for all threads, as others cannot hold large blocks; it never shrinks.
    settings = ((M_MMAP_MAX, 0), (M_ARENA_MAX, 1), (M_TRIM_THRESHOLD, -1))
    taken = [mallopt(name, value) for name, value in settings]
    return all(taken)
