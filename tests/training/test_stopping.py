"""Signals are heard wherever they come."""

import subprocess
import sys

PROGRAM = """
import gc, os, signal, sys, time
from imas_jax.errors import Stopped, last_words
from imas_jax.training import stopping

class Last:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)

def collect(phase, information):
    if phase == "start":
        gc.callbacks.remove(collect)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)

stopping.raise_when_asked()
try:
    if sys.argv[1] == "destructor":
        last = Last()
        del last
    else:
        gc.callbacks.append(collect)
        gc.collect()
    time.sleep(20)
    sys.exit(1)
except Stopped as error:
    sys.exit(last_words(error)[1])
"""


def test_a_signal_that_python_drops_is_raised_again():
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, where],
            stderr=subprocess.PIPE,
            text=True,
        )
        for where in ("destructor", "collector")
    ]
    said = [process.communicate()[1] for process in running]
    assert [process.returncode for process in running] == [128 + 15] * 2, said
    assert said == ["", ""]
