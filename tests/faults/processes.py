"""Ending a driver the hard way."""

import contextlib
import os
import signal
import subprocess

import psutil


def kill_with_followers(process: subprocess.Popen[bytes], patience: float = 120.0, at_once: bool = False) -> None:
    """Kills the process group of a driver at once, then waits for Ray's processes below it.

    They follow their driver within seconds, but one of them may finish what it writes before it does: whoever looks at
    the results earlier may see one shard less than the next run finds. With `at_once` they are killed, too, as the end
    of their machine does: some take minutes to follow.
    """
    followers = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    for follower in followers if at_once else ():
        with contextlib.suppress(psutil.NoSuchProcess):
            follower.kill()
    process.wait()
    assert not psutil.wait_procs(followers, timeout=patience)[1]
