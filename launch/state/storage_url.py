"""The URL of a study's database, as it may be shown and written down: without its passwords."""

import re
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

HIDDEN = "***"
SECRETS = re.compile("pass|pwd|secret|token|key|credential|dsn", re.IGNORECASE)  # names of parameters, of all drivers


def parse_url(url: str) -> "URL | None":
    """The URL as the database's driver will read it; None for what is none.

    Neither is one in which an @ stands where the driver would take a part of the password for something else.
    """
    from sqlalchemy.engine import make_url  # imported where there is a database: it takes a tenth of a second
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # the latter for a port that is no number: it may be a password
        return None
    login = parsed.username is not None or parsed.password is not None
    if parsed.get_backend_name() != "sqlite" and url.count("@") != login:
        return None
    return parsed


def without_password(url: str) -> str:
    """The URL as it may be shown and written down; of what is no URL, only the beginning that tells its kind."""
    parsed = parse_url(url)
    if parsed is None:
        kind = re.match(r"[a-z0-9+]+:", url)
        return f"{kind[0]}…" if kind else HIDDEN
    secrets = [name for name in parsed.query if SECRETS.search(name)]
    if parsed.password is None and not secrets:
        return url
    shown = parsed.update_query_dict(dict.fromkeys(secrets, HIDDEN)).render_as_string(hide_password=True)
    return shown.replace(quote_plus(HIDDEN), HIDDEN)


def secrets_of(url: str) -> set[str]:
    """The passwords in a URL, as they are and as they may stand in a text."""
    parsed = parse_url(url)
    if parsed is None:
        return set()
    values = set()
    if parsed.password:
        values = {str(parsed.password), url.partition("://")[2].rpartition("@")[0].partition(":")[2]}
    for name, value in parsed.query.items():
        if SECRETS.search(name):
            values |= {value} if isinstance(value, str) else set(value)
    return {way(value) for value in values for way in (str, quote, quote_plus)} - {""}
