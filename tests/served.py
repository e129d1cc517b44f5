"""A server of this machine for a browser to look at."""

import re
import socket
import subprocess
import urllib.error
import urllib.request
from contextlib import contextmanager

from browser import errors, requests
from slurm_cluster import wait_for


@contextmanager
def served(command, log, **options):
    """The address of a server that the command starts on a free port, with its token; it is ended with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with open(log, "w") as file:
        process = subprocess.Popen([*command, "--port", str(port)], stdout=file, stderr=file, **options)
    try:
        address = re.compile(rf"http://127.0.0.1:{port}/\S*\?token=(\S+)")
        wait_for(lambda: process.poll() is not None or address.search(log.read_text()), 60)
        assert process.poll() is None, log.read_text()
        yield Address(f"http://127.0.0.1:{port}/", address.search(log.read_text())[1])
    finally:
        process.terminate()
        process.wait(20)


class Address(str):
    """The address of a server, without its token."""

    def __new__(cls, url, token):
        address = super().__new__(cls, url)
        address.token = token
        address.port = int(url.rstrip("/").rpartition(":")[2])
        return address

    def ask(self, path="", body=None, method=None, **headers):
        """Status and content of an answer, for the browser that opened the address; headers in Python's names."""
        known = {"Cookie": f"fsr_{self.port}={self.token}", "Content-Type": "application/json"}
        headers = {name.replace("_", "-"): value for name, value in (known | headers).items() if value is not None}
        request = urllib.request.Request(self + path, body, headers, method=method)
        try:
            with urllib.request.build_opener(NoRedirect).open(request) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Shows an answer that leads elsewhere."""

    def redirect_request(self, *_):
        return None


@contextmanager
def opened(browser, url, path=""):
    """A page of a server. It must not have an error, nor ask another server; it is left with the block."""
    browser.get(f"{url}?token={url.token}")
    browser.get(url + path)
    yield browser
    assert errors(browser) == []
    assert [request for request in requests(browser) if not request.startswith(url)] == []
    browser.get("about:blank")  # or it would go on asking
