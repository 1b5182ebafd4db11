"""The gateway's threads share few arenas: each would keep what it has freed in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from gateway.allocation import ARENAS

THREADS = 24
"""More than glibc makes arenas for by itself, on one core as on many: eight a core."""
COUNT = f"""
    import ctypes, os, tempfile, threading
    libc = ctypes.CDLL(None)
    libc.fopen.restype, libc.malloc.restype = ctypes.c_void_p, ctypes.c_void_p

    def arenas():
        together = threading.Barrier({THREADS})

        def allocate():
            together.wait()
            libc.malloc(1000)
            together.wait()

        threads = [threading.Thread(target=allocate) for _ in range({THREADS})]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with tempfile.NamedTemporaryFile() as file:
            stream = ctypes.c_void_p(libc.fopen(file.name.encode(), b"w"))
            libc.malloc_info(0, stream)
            libc.fclose(stream)
            return file.read().count(b"<heap ")
"""
RUN = """
    import gateway.serve
    from gateway.__main__ import main

    def serve(settings):
        print(arenas())
        return 0

    gateway.serve.serve = serve
    main(["run", "--data", tempfile.mkdtemp()])
"""


def counted(script: str, **environment: str) -> int:
    """What the script prints."""
    clean = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    one_thread = {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(COUNT) + textwrap.dedent(script)],
        env={**clean, **one_thread, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.proof
@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_threads_of_a_gateway_share_arenas() -> None:
    assert counted("print(arenas())") > ARENAS, "glibc makes more by itself; else this test says nothing"
    assert counted(RUN) <= ARENAS


@pytest.mark.proof
@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_what_the_environment_says_of_arenas_holds() -> None:
    assert ARENAS < counted(RUN, MALLOC_ARENA_MAX="5") <= 5
