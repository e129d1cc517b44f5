"""Two nodes of a cluster that share a folder, on one machine: two mounts of it with caches of their own, as of NFS.

The kernel's own FUSE module is both clients: each mount has its own cache of names (also of those that are not there),
attributes, listings and content, and believes it for `delay_s`, as NFS does for 3 to 60 s. node_server.py is the
server of both. It needs root and /dev/fuse, nothing else.

What holds, as between two clients of NFS:

- open sees what was closed before it elsewhere (close-to-open); a file that stays open is read from the cache;
- what is written reaches the server with close, fsync, unlocking or after `delay_s`;
- O_EXCL and rename are the server's. Whoever reads on in a file that another node replaced or removed gets ESTALE, or,
  if not `stale`, its old content;
- O_APPEND goes where this node believes the end to be;
- a file that is removed or replaced on the node which has it open stays there as `.nfs…` until it is closed;
- locks (of whole files) are the server's ("shared"), each node's own ("local", as of Lustre's localflock), or there are
  none ("none", as of Lustre without flock);
- times of files are the server's, whose clock may differ by `skew_s` from everybody's.
"""

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

DETACH = 2
SERVER = Path(__file__).with_name("node_server.py")


@dataclass(frozen=True)
class Nodes:
    """Where each node sees the folder, where it lies, and where commands see it that run on a node."""

    a: Path
    b: Path
    server: Path
    shared: Path

    def on(self, name: str) -> list[str]:
        """What is put before a command that is to run on node `a` or `b`, where the folder is `shared`."""
        script = 'hostname "$1" && mount --bind "$2" "$3" && shift 3 && exec "$@"'
        namespaces = ["unshare", "--mount", "--uts", "--propagation", "private"]
        return [*namespaces, "sh", "-c", script, "sh", f"node-{name}", str(getattr(self, name)), str(self.shared)]


def missing() -> str | None:
    """Why nothing can be mounted here; None if it can."""
    if os.geteuid() != 0:
        return "only root may mount"
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"no FUSE here: {error}"
    return None


@contextmanager
def two_nodes(folder: Path, delay_s: float, *options: str) -> Iterator[Nodes]:
    """Two nodes that share a new folder; what the server says is an error."""
    nodes = Nodes(folder / "a", folder / "b", folder / "server", folder / "shared")
    for path in (nodes.a, nodes.b, nodes.server, nodes.shared):
        path.mkdir(parents=True)
    log = folder / "server.log"
    arguments = [nodes.server, nodes.a, nodes.b, "--delay_s", delay_s, *options]
    with open(log, "w") as errors:
        server = subprocess.Popen([sys.executable, SERVER, *map(str, arguments)], stderr=errors)
    try:
        deadline = time.monotonic() + 30
        while not (os.path.ismount(nodes.a) and os.path.ismount(nodes.b)):
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield nodes
    finally:
        for path in (nodes.a, nodes.b):
            ctypes.CDLL(None).umount2(str(path).encode(), DETACH)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:  # somebody is still there
            server.kill()
            server.wait()
    assert not log.read_text(), log.read_text()
