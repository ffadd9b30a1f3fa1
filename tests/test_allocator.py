"""Freed memory that is kept, by what the kernel counts."""

import subprocess
import sys
import textwrap

import pytest

PAGES = 16384  # of 4 KiB: 64 MiB


def faults(keep: bool) -> int:
    """Page faults of filling 64 MiB again, where 64 MiB were freed, in a fresh process."""
    program = f"""
        import ctypes, resource
        from atvg_jax import allocator
        libc = ctypes.CDLL(None)
        libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        libc.free.argtypes = [ctypes.c_void_p]
        if {keep}:
            assert allocator.keep_freed_memory()

        def fill():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            block = libc.malloc({PAGES * 4096})
            ctypes.memset(block, 1, {PAGES * 4096})
            libc.free(block)
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

        fill()
        print(fill())
    """
    made = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    return int(made.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is the GNU C library's")
def test_freed_memory_is_used_again():
    kept = faults(keep=True)
    assert kept < PAGES / 100  # huge pages would be 2 MiB
    assert kept < faults(keep=False)
