"""Several Ray nodes on this machine, each of which can end as a machine does whose power goes."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from tests.ports import free_port

TRIES = 8  # to start a node on a machine that is busy
OBJECT_STORE = 150 * 2**20
# Ray turns 127.0.0.1 in an address into the machine's own, where nobody listens here. A driver is told to leave it by a
# variable that `ray start` takes for a system without clusters: there, the function that asks is replaced.
_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_START = (
    "import ray._private.services as services; services.get_node_ip_address = lambda address=None: '127.0.0.1'; "
    "from ray.scripts.scripts import main; main()"
)
ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",  # all of it is on loopback
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    _LOOPBACK: "0",
    # On a busy machine a node needs minutes to start, and what is busy is not dead.
    "RAY_raylet_start_wait_time_s": "60",
    "RAY_gcs_server_request_timeout_seconds": "300",
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_health_check_timeout_ms": "60000",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclasses.dataclass(frozen=True)
class Node:
    """One `ray start` with all that it started."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def below(self) -> list[psutil.Process]:
        """Its raylet, its agents and its workers."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def end(self) -> None:
        """Kills all of it: its process group, in which Ray leaves what it starts, and whatever is below it."""
        below = self.below()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for process in below:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()


def environment(root: str | Path, **more: str) -> dict[str, str]:
    """What nodes, and drivers that connect to them, are started with; apart from any other Ray of this machine.

    Args:
        root: the checkout, from which workers import the project.
        more: further variables.
    """
    temporary = tempfile.mkdtemp(prefix="lf-")  # short: the names of sockets below it may have 107 characters
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH", "")]))
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return {**inherited, **ENVIRONMENT, "RAY_TMPDIR": temporary, "PYTHONPATH": path, **more}


class Nodes:
    """A head without logical CPUs, as in the cluster files, and nodes that work: `ray start` of its own for each.

    Args:
        environment: see `environment`.
        cpus: logical CPUs of each node that works.
    """

    def __init__(self, environment: Mapping[str, str], *cpus: int) -> None:
        self._environment = dict(environment)
        self.address = f"127.0.0.1:{free_port()}"
        port = self.address.rpartition(":")[2]
        self._head = self._patiently("--head", "--port", port, "--num-cpus", "0", "--include-dashboard", "false")
        self.workers: list[Node] = []
        for count in cpus:
            self.add(count)

    def _start(self, *options: str) -> Node:
        log = Path(tempfile.mkstemp(prefix="node-", suffix=".log", dir=self._environment["RAY_TMPDIR"])[1])
        # Each port that a raylet is told is one that it need not wait for.
        agents = ("dashboard-agent-grpc", "dashboard-agent-listen", "runtime-env-agent", "metrics-export")
        ports = [part for agent in agents for part in (f"--{agent}-port", str(free_port()))]
        command = [
            sys.executable, "-c", _START, "start", "--block", "--node-ip-address", "127.0.0.1",
            "--object-store-memory", str(OBJECT_STORE), "--num-gpus", "0", "--min-worker-port", "0",
            "--max-worker-port", "0", *ports, *options,
        ]  # fmt: skip
        with open(log, "wb") as stream:
            own = {name: value for name, value in self._environment.items() if name != _LOOPBACK}
            process = subprocess.Popen(command, env=own, stdout=stream, stderr=stream, start_new_session=True)
        return Node(process, log)

    def _patiently(self, *options: str) -> Node:
        """A node that runs; a raylet gives up where the machine is too busy to start its agents in fifteen seconds."""
        for _ in range(TRIES):
            node = self._start(*options)
            while node.process.poll() is None:
                if "Ray runtime started" in node.log.read_text(errors="replace"):
                    return node
                time.sleep(0.1)
            node.end()
        raise RuntimeError(f"a Ray node did not start:\n{node.log.read_text(errors='replace')[-2000:]}")

    def add(self, cpus: int) -> None:
        """One more node that works."""
        self.workers.append(self._patiently("--address", self.address, "--num-cpus", str(cpus)))

    @staticmethod
    def processes(node: Node, *titles: str) -> list[psutil.Process]:
        """Ray's worker processes on a node that do something of such a title right now."""
        found = []
        for process in node.below():
            with contextlib.suppress(psutil.NoSuchProcess):
                if " ".join(process.cmdline()).startswith(titles):
                    found.append(process)
        return found

    def kill(self, node: Node) -> None:
        """Ends all of a node at once."""
        node.end()
        if node in self.workers:
            self.workers.remove(node)

    def kill_head(self) -> None:
        """Ends the head: nobody knows the cluster any more, and its nodes end themselves when they have noticed."""
        self.kill(self._head)

    def close(self) -> None:
        """Ends what is left of it."""
        for node in [*self.workers, self._head]:
            node.end()
