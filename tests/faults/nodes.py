"""Several Ray nodes on this machine, each of which can be killed as if its machine lost power."""

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

TRIES = 8  # to start a node; the first ones may fail on a busy machine
OBJECT_STORE = 150 * 2**20
# Ray replaces 127.0.0.1 in an address by the machine's network address, on which these nodes do not listen. For drivers
# a variable prevents this. `ray start` reads the same variable as "no clusters on this system", so nodes start without
# it and the function that looks up the address is replaced instead.
_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_START = (
    "import ray._private.services as services; services.get_node_ip_address = lambda address=None: '127.0.0.1'; "
    "from ray.scripts.scripts import main; main()"
)
ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",  # everything is on loopback
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    _LOOPBACK: "0",
    # On a busy machine a node needs minutes to start, and a busy node must not count as dead.
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
    """A `ray start` with all processes below it.

    Attributes:
        process: the process of the command.
        log: the file with its output.
    """

    process: "subprocess.Popen[bytes]"
    log: Path

    def below(self) -> list[psutil.Process]:
        """Return its raylet, its agents and its workers."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def end(self) -> None:
        """Kill the process group, which Ray's processes stay in, and all processes below it."""
        below = self.below()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for process in below:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()


def environment(root: str | Path, **more: str) -> dict[str, str]:
    """Return the variables of nodes and drivers, which keep them apart from any other Ray of this machine.

    Args:
        root: the checkout, from which workers import the project.
        more: further variables.
    """
    temporary = tempfile.mkdtemp(prefix="lf-")  # short: the path of a socket may have at most 107 characters
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH", "")]))
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return {**inherited, **ENVIRONMENT, "RAY_TMPDIR": temporary, "PYTHONPATH": path, **more}


class Nodes:
    """A cluster of nodes: a head without logical CPUs, as in the cluster files, and worker nodes.

    Args:
        environment: see `environment`.
        cpus: logical CPUs of each worker node.
    """

    def __init__(self, environment: Mapping[str, str], *cpus: int) -> None:
        self._environment = dict(environment)
        self.address = f"127.0.0.1:{free_port()}"
        port = self.address.rpartition(":")[2]
        self._head = self._start_patiently("--head", "--port", port, "--num-cpus", "0", "--include-dashboard", "false")
        self.workers: list[Node] = []
        for count in cpus:
            self.add(count)

    def _start(self, *options: str) -> Node:
        log = Path(tempfile.mkstemp(prefix="node-", suffix=".log", dir=self._environment["RAY_TMPDIR"])[1])
        # Fixed ports: a raylet waits for each port that it has to choose itself.
        agents = ("dashboard-agent-grpc", "dashboard-agent-listen", "runtime-env-agent", "metrics-export")
        ports = [part for agent in agents for part in (f"--{agent}-port", str(free_port()))]
        command = [
            sys.executable, "-c", _START, "start", "--block", "--node-ip-address", "127.0.0.1",
            "--object-store-memory", str(OBJECT_STORE), "--num-gpus", "0", "--min-worker-port", "0",
            "--max-worker-port", "0", *ports, *options,
        ]  # fmt: skip
        with open(log, "wb") as stream:
            variables = {name: value for name, value in self._environment.items() if name != _LOOPBACK}
            process = subprocess.Popen(command, env=variables, stdout=stream, stderr=stream, start_new_session=True)
        return Node(process, log)

    def _start_patiently(self, *options: str) -> Node:
        """Start a node, several times if needed: a raylet gives up if its agents do not start within 15 seconds."""
        for _ in range(TRIES):
            node = self._start(*options)
            while node.process.poll() is None:
                if "Ray runtime started" in node.log.read_text(errors="replace"):
                    return node
                time.sleep(0.1)
            node.end()
        raise RuntimeError(f"a Ray node did not start:\n{node.log.read_text(errors='replace')[-2000:]}")

    def add(self, cpus: int) -> None:
        """Add a worker node."""
        self.workers.append(self._start_patiently("--address", self.address, "--num-cpus", str(cpus)))

    @staticmethod
    def processes(node: Node, *titles: str) -> list[psutil.Process]:
        """Return Ray's worker processes on a node whose process title begins with one of `titles`."""
        processes = []
        for process in node.below():
            with contextlib.suppress(psutil.NoSuchProcess):
                if " ".join(process.cmdline()).startswith(titles):
                    processes.append(process)
        return processes

    def kill(self, node: Node) -> None:
        """Kill a node."""
        node.end()
        if node in self.workers:
            self.workers.remove(node)

    def kill_head(self) -> None:
        """Kill the head. The other nodes stop by themselves as soon as they notice."""
        self.kill(self._head)

    def close(self) -> None:
        """Kill the nodes that are left."""
        for node in [*self.workers, self._head]:
            node.end()
