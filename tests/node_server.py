"""The file server of `two_nodes`, over a folder of this machine, with both nodes and their locks."""

import argparse
import os
import resource
import select
from pathlib import Path

from node import Node
from node_locks import Locks


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("folder", "a", "b"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--delay_s", type=float, default=1.0)
    parser.add_argument("--skew_s", type=float, default=0.0)
    parser.add_argument("--locks", choices=("shared", "local", "none"), default="shared")
    parser.add_argument("--no-stale", dest="stale", action="store_false")
    options = parser.parse_args()
    os.umask(0)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    locks = Locks()
    nodes = {node.device: node for node in (Node(locks, options.folder, at, options) for at in (options.a, options.b))}
    poll = select.poll()
    for device in nodes:
        poll.register(device, select.POLLIN)
    while nodes:
        for device, event in poll.poll(options.delay_s * 500):
            if event & select.POLLERR or not nodes[device].serve():
                poll.unregister(device)
                nodes.pop(device)
                os.close(device)
            locks.grant()
        for node in nodes.values():
            node.send_old()


if __name__ == "__main__":
    main()
