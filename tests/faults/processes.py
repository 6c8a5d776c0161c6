"""Ending a driver the hard way."""

import contextlib
import os
import signal
import subprocess

import psutil


def kill_with_followers(process: subprocess.Popen[bytes], patience: float = 120.0) -> None:
    """Kills the process group of a driver at once, then waits for Ray's processes below it.

    They follow their driver within seconds, but one of them may finish what it writes before it does: whoever looks at
    the results earlier may see one shard less than the next run finds.
    """
    followers = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not psutil.wait_procs(followers, timeout=patience)[1]


def kill_with_everything(process: subprocess.Popen[bytes], patience: float = 60.0) -> None:
    """Kills a driver and all processes below it at once, as the end of its machine does."""
    followers = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    for follower in followers:
        with contextlib.suppress(psutil.NoSuchProcess):
            follower.kill()
    process.wait()
    assert not psutil.wait_procs(followers, timeout=patience)[1]
