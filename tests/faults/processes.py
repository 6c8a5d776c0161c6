"""Killing a driver with all processes below it."""

import contextlib
import os
import signal
import subprocess

import psutil


def kill_with_followers(process: subprocess.Popen[bytes], patience: float = 120.0, followers_too: bool = False) -> None:
    """Kill the process group of a driver, then wait until Ray's processes below it have ended.

    Ray's processes end within seconds after their driver, but one may finish a shard before. A test that reads the
    results without waiting would count one shard too few.

    Args:
        process: the driver.
        patience: seconds to wait for Ray's processes.
        followers_too: kill Ray's processes as well, as if the machine lost power; some take minutes to end.
    """
    followers = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    for follower in followers if followers_too else ():
        with contextlib.suppress(psutil.NoSuchProcess):
            follower.kill()
    process.wait()
    assert not psutil.wait_procs(followers, timeout=patience)[1]
