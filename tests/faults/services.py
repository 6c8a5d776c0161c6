"""Services that jobs need besides Ray, and that a test can take away: MLflow, an object store, disk space."""

import contextlib
import http.client
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.fs as pafs

from tests.ports import free_port

SLOW_DOWN = b"<Error><Code>ServiceUnavailable</Code><Message>Out for a while</Message></Error>"
_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive", "server", "date"}


class MlflowServer:
    """A real `mlflow server` on loopback, with SQLite and artifacts in a folder. It can be killed and started again.

    Args:
        folder: the folder of its files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self._port}"
        folder.mkdir(parents=True, exist_ok=True)
        self.start()

    def start(self, patience: float = 300.0) -> None:
        """Start the server and wait until it answers."""
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port), "--workers",
            "1", "--backend-store-uri", f"sqlite:///{self._folder}/mlflow.db", "--artifacts-destination",
            str(self._folder / "artifacts"),
        ]  # fmt: skip
        with open(self._folder / "server.log", "ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + patience
        while True:
            with contextlib.suppress(urllib.error.URLError, OSError):
                urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self._folder / "server.log").read_text()[-2000:])
            time.sleep(0.5)

    def kill(self) -> None:
        """Kill the server and its workers."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class ObjectStore:
    """moto's S3 behind a proxy that answers 503 as long as `failing` is set.

    Args:
        bucket: the bucket that is created.

    Attributes:
        environment: the variables by which AWS clients find the proxy.
        filesystem: a connection that bypasses the proxy.
        failing: set while every request is refused.
        refused: number of refused requests.
    """

    def __init__(self, bucket: str) -> None:
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would print every request
        self._moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._moto.start()
        _, port = self._moto.get_host_and_port()
        self.filesystem = pafs.S3FileSystem(
            access_key="test", secret_key="test", region="us-east-1", scheme="http",
            endpoint_override=f"127.0.0.1:{port}", allow_bucket_creation=True,
        )  # fmt: skip
        self.failing, self.refused = threading.Event(), 0
        store = self

        class Proxy(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self) -> None:
                body = self.body()
                status, headers, content = 503, {"Content-Type": "application/xml"}, SLOW_DOWN
                if store.failing.is_set():
                    store.refused += 1
                else:
                    status, headers, content = self.ask(body)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                length = headers.get(
                    "Content-Length", str(len(content))
                )  # the answer to a HEAD has the length of the file
                if "Content-Length" not in headers:
                    self.send_header("Content-Length", length)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            def body(self) -> bytes:
                if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                parts = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)

            def ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
                behind = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                try:
                    behind.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                    for name, value in self.headers.items():
                        if name.lower() not in ("expect", *_HOP_BY_HOP):
                            behind.putheader(name, value)
                    behind.putheader("Content-Length", str(len(body)))
                    behind.endheaders(body)
                    answer = behind.getresponse()
                    content = answer.read()
                    headers = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP}
                    if self.command == "HEAD":
                        headers["Content-Length"] = answer.getheader("Content-Length") or "0"
                    return answer.status, headers, content
                finally:
                    behind.close()

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward

            def log_message(self, format: str, *args: object) -> None:
                """Log nothing: the default prints every request."""

        self._proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
        self._proxy.daemon_threads = True
        threading.Thread(target=self._proxy.serve_forever, daemon=True).start()
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._proxy.server_port}", "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip
        self.filesystem.create_dir(bucket)

    def close(self) -> None:
        """Stop the proxy and the store."""
        self._proxy.shutdown()
        self._moto.stop()


@contextlib.contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[None]:
    """Mount a small file system in memory for the time of a `with` block. It needs root.

    Args:
        folder: the mount point.
        mebibytes: its size.

    Raises:
        PermissionError: this process may not mount.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        raise PermissionError(f"no file system can be mounted here ({mounted.stderr.decode().strip()})")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Fill the file system of a folder; return the file whose deletion makes room again."""
    filler = folder / "filler"
    with open(filler, "wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(b"\0" * 65536)
    with open(filler, "ab", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(b"\0" * 512)
    return filler
