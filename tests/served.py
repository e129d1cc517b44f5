"""A server of this machine for a browser to look at."""

import socket
import subprocess
import urllib.error
import urllib.request
from contextlib import contextmanager

from browser import errors, requests
from slurm_cluster import wait_for


@contextmanager
def served(command, log, **options):
    """The address of a server that the command starts on a free port; it is ended with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    with open(log, "w") as file:
        process = subprocess.Popen([*command, "--port", str(port)], stdout=file, stderr=file, **options)
    try:
        wait_for(lambda: process.poll() is not None or answers(url), 60)
        assert process.poll() is None, log.read_text()
        yield url
    finally:
        process.terminate()
        process.wait(20)


def answers(url):
    try:
        urllib.request.urlopen(url).close()
    except urllib.error.URLError:
        return False
    return True


@contextmanager
def opened(browser, url, path=""):
    """A page of a server. It must not have an error, nor ask another server; it is left with the block."""
    browser.get(url + path)
    yield browser
    assert errors(browser) == []
    assert [request for request in requests(browser) if not request.startswith(url)] == []
    browser.get("about:blank")  # or it would go on asking
