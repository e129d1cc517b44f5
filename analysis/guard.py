"""Who may ask a server of this machine: only who knows the token in its address, and no page of another site.

All users of a machine reach its ports, and so does every page in its users' browsers (by DNS rebinding, even with
answers). One WSGI middleware and one server for optuna-dashboard and TensorBoard.
"""

import secrets
from collections.abc import Callable, Iterable
from http.cookies import CookieError, SimpleCookie
from socketserver import ThreadingMixIn
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, quote, urlencode, urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from fsr.errors import UserError

Application: TypeAlias = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

HOST = "127.0.0.1"
NAMES = (HOST, "localhost", "::1")  # any port: ssh may lead another one here
READING = frozenset({"GET", "HEAD"})


class Guard:
    """A WSGI application that answers for another one, but to its owner's browser alone.

    The first request brings the token in the address; then it is a cookie, so that it stays out of the history and of
    what is copied from the browser. `methods` are the HTTP methods that are let through; None are all.
    """

    def __init__(self, application: Application, methods: frozenset[str] | None = READING) -> None:
        self._application = application
        self._methods = methods
        self.token = secrets.token_urlsafe(24)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request, or say in a sentence why not."""
        host, origin = environ.get("HTTP_HOST", ""), environ.get("HTTP_ORIGIN")
        query = parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True)
        given = dict(query).get("token")
        cookie = f"fsr_{environ['SERVER_PORT']}"
        refusal = None
        if _name_of(host) not in NAMES:
            refusal = "403 Forbidden", f"this server answers as {' or '.join(NAMES)} only"
        elif origin not in (None, f"http://{host}"):
            refusal = "403 Forbidden", "this server answers to its own pages only"
        elif not self._knows(given) and not self._knows(_cookies(environ).get(cookie)):
            refusal = "401 Unauthorized", "take the whole address that the command printed, with its token"
        elif self._methods is not None and environ["REQUEST_METHOD"] not in self._methods:
            refusal = "403 Forbidden", "this server only shows; to change something, start it with --writable"
        if refusal is not None:
            status, sentence = refusal
            start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
            return [f"{sentence}\n".encode()]
        if given is not None and environ["REQUEST_METHOD"] in READING:
            rest = urlencode([pair for pair in query if pair[0] != "token"])
            place = quote(environ.get("PATH_INFO", "/").lstrip("/"), encoding="latin-1")
            keep = f"{cookie}={self.token}; Path=/; HttpOnly; SameSite=Lax"
            location = f"/{place}" + (f"?{rest}" if rest else "")
            start_response("303 See Other", [("Location", location), ("Set-Cookie", keep)])
            return []
        return self._application(environ, start_response)

    def _knows(self, token: str | None) -> bool:
        return token is not None and secrets.compare_digest(token.encode(), self.token.encode())


def _name_of(host: str) -> str | None:
    """The host's name in a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _cookies(environ: dict[str, Any]) -> dict[str, str]:
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(environ.get("HTTP_COOKIE", "")).items()}
    except CookieError:
        return {}


class Handler(WSGIRequestHandler):
    """Writes no line for each request."""

    def log_message(self, *args: Any) -> None:
        """Nothing."""


def no_port(port: int, error: OSError | OverflowError) -> UserError:
    """The sentence that tells why a port cannot be had."""
    reason = getattr(error, "strerror", None) or str(error)
    return UserError(f"port {port}: {reason}; name another with --port, or PORT= for make")


class Server(ThreadingMixIn, WSGIServer):
    """Serves a guarded application on a port of this machine. Raises UserError if the port cannot be had.

    Each connection has its own thread: browsers open some in advance and send nothing on them, and in a single thread
    one of these would block the rest.
    """

    daemon_threads = True

    def __init__(self, guard: Guard, port: int) -> None:
        try:
            super().__init__((HOST, port), Handler)
        except (OSError, OverflowError) as error:
            raise no_port(port, error) from None
        self._guard = guard
        self.set_app(guard)

    def get_url(self, page: str = "") -> str:
        """The address of a page, with the token."""
        return f"http://{HOST}:{self.server_port}/{page}?token={self._guard.token}"
