"""`make cluster`: start a Ray head and an MLflow server on this machine, for submitted jobs. Ctrl-C stops both.

The dashboard and MLflow listen on the loopback interface only. Ray cannot bind all its other ports to it, so Ray
requires the user's token (`~/.ray/auth_token`, created if it is missing) unless `RAY_AUTH_MODE=disabled` is set. MLflow
stores its SQLite database and files in `--folder`. If `MLFLOW_TRACKING_URI` is set, that server is used instead.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

_ROOT = Path(__file__).resolve().parents[1]
_BIN = Path(sys.executable).parent
_START = 600.0  # seconds until each server must be ready; an idle machine needs about 20
_TRIES = 4
_END = 60.0  # seconds until each server must have ended
_SAVE = 900  # seconds that a stopped job has for its checkpoint before it is killed; Ray's default is 3


def main(argv: Sequence[str] | None = None) -> int:
    """Start both servers, print their addresses, and wait for Ctrl-C, SIGTERM or the end of a server."""
    options = _parser().parse_args(argv)
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    own = os.environ.get("MLFLOW_TRACKING_URI")
    for name in ("port",) if own else ("port", "mlflow_port"):
        if _answers(getattr(options, name)):
            sys.stderr.write(f"Port {getattr(options, name)} is in use; set another --{name.replace('_', '-')}.\n")
            return 2
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    agent = _free_port()
    _address_file(options).unlink(missing_ok=True)
    ray = f"http://127.0.0.1:{options.port}"
    mlflow = f"http://127.0.0.1:{options.mlflow_port}"
    environment = {
        **os.environ,
        "PATH": f"{_BIN}{os.pathsep}{os.environ.get('PATH', '')}",  # so that the jobs' `python` is this one
        "RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "token"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DASHBOARD_STARTUP_TIMEOUT_S": str(int(_START)),
        "RAY_JOB_STOP_WAIT_TIME_S": str(_SAVE),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # saves six processes; no job uses this feature
        "MLFLOW_TRACKING_URI": own or mlflow,
    }
    environment.pop("RAY_ADDRESS", None)
    if environment["RAY_AUTH_MODE"] == "token" and not _has_token():
        subprocess.run([_BIN / "ray", "get-auth-token", "--generate"], env=environment, check=True, capture_output=True)
    with ExitStack() as stack:
        try:
            servers = []
            if not own:
                log = folder / "mlflow.log"
                servers.append(_up(stack, _mlflow(options, folder), environment, log, lambda: _responds(mlflow)))
            log = folder / "ray.log"
            servers.append(_up(stack, _ray(options, agent), environment, log, lambda: _started(options, agent)))
            _print_addresses(ray, own or mlflow, folder, environment["RAY_AUTH_MODE"] == "token")
            while all(server.poll() is None for server in servers):
                time.sleep(0.5)
            sys.stderr.write(f"A server has ended by itself; see the logs in {folder}.\n")
            return 1
        except KeyboardInterrupt:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not interrupt the shutdown
            sys.stderr.write("\nstopping both servers …\n")
            return 0
        except TimeoutError as error:
            sys.stderr.write(f"{error}\n")
            return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cluster.local", description=__doc__)
    parser.add_argument("--port", type=int, default=8265, help="port of Ray's dashboard, to which jobs are submitted")
    parser.add_argument("--mlflow-port", type=int, default=5000, help="port of the MLflow server")
    parser.add_argument("--cpus", type=int, default=8, help="logical CPUs of Ray; may exceed the number of cores")
    parser.add_argument(
        "--folder",
        type=Path,
        default=_ROOT / "runs/cluster",
        help="folder for MLflow's database and files, and for both logs",
    )
    return parser


def _ray_files(options: argparse.Namespace) -> str:
    """Return the folder for Ray's files: a short path (socket paths have at most 107 bytes), separate for each port."""
    return os.environ.get("RAY_TMPDIR") or os.path.join(tempfile.gettempdir(), f"lion-ray-{options.port}")


def _address_file(options: argparse.Namespace) -> Path:
    """Return the file that `ray start` writes when the head is ready."""
    return Path(_ray_files(options), "ray_current_cluster")


def _started(options: argparse.Namespace, agent: int) -> bool:
    """Return whether the head accepts jobs. Its agent, which starts jobs, is ready later than the dashboard."""
    return _address_file(options).exists() and _answers(agent)


def _ray(options: argparse.Namespace, agent: int) -> list[str]:
    return [
        str(_BIN / "ray"), "start", "--head", "--block", "--node-ip-address", "127.0.0.1", "--port", "0",
        "--dashboard-host", "127.0.0.1", "--dashboard-port", str(options.port), "--num-cpus", str(options.cpus),
        "--dashboard-agent-listen-port", str(agent), "--ray-client-server-port", str(_free_port()),
        "--temp-dir", _ray_files(options), "--disable-usage-stats",
    ]  # fmt: skip


def _mlflow(options: argparse.Namespace, folder: Path) -> list[str]:
    return [
        str(_BIN / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(options.mlflow_port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "mlartifacts"),
    ]  # fmt: skip


@contextmanager
def _running(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in a new session, so that Ctrl-C does not reach it; at the end stop it and its child processes."""
    with log.open("ab") as sink:
        server = subprocess.Popen(command, env=environment, stdout=sink, stderr=sink, start_new_session=True)
    try:
        yield server
    finally:
        family = psutil.Process(server.pid).children(recursive=True) if server.poll() is None else []
        server.terminate()
        try:
            server.wait(_END)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        for process in psutil.wait_procs(family, timeout=_END)[1]:
            process.kill()


def _up(
    stack: ExitStack, command: Sequence[str], environment: Mapping[str, str], log: Path, ready: Callable[[], bool]
) -> subprocess.Popen[bytes]:
    """Start a server and wait until it is ready; start it again if it ends.

    Ray's head ends if it is not ready after 30 seconds, which a busy machine may need.

    Raises:
        TimeoutError: the server does not become ready.
    """
    for _ in range(_TRIES):
        trial = stack.enter_context(ExitStack())
        server = trial.enter_context(_running(command, environment, log))
        deadline = time.monotonic() + _START
        while server.poll() is None and time.monotonic() < deadline:
            if ready():
                return server
            time.sleep(0.5)
        trial.close()
    last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise TimeoutError(f"{command[0]} did not become ready; the last lines of {log}:\n{last}")


def _responds(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=5).close()
    except urllib.error.HTTPError:  # the server answers, but requires a token or has no such page
        return True
    except OSError:
        return False
    return True


def _print_addresses(ray: str, mlflow: str, folder: Path, token: bool) -> None:
    out = folder.parent
    verb = f"sample_world --images 100 --out {out}"
    mode = "token" if token else "disabled"
    lines = [
        f"Ray      {ray}" + ("   (the browser asks for the token; print it with: ray get-auth-token)" if token else ""),
        f"MLflow   {mlflow}   (both logs and MLflow's files: {folder})",
        f"Submit   python -m jobs.submit --address {ray} -- {verb}",
        f"or       RAY_AUTH_MODE={mode} ray job submit --address {ray} --working-dir . -- python -m jobs.{verb}",
        "Ctrl-C stops both.",
    ]
    print("\n".join(lines), flush=True)


def _end(*_: object) -> None:
    raise KeyboardInterrupt


def _has_token() -> bool:
    variables = [os.environ.get("RAY_AUTH_TOKEN"), os.environ.get("RAY_AUTH_TOKEN_PATH")]
    return any(variables) or (Path.home() / ".ray/auth_token").exists()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
