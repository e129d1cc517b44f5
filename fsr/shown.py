"""Text of others as it may be shown: control characters and terminal escapes become visible, and are never sent.

Names of files, labels of a data set, what Slurm or a library says: all of it reaches a terminal or a log through
standard output, standard error or a console (`fsr/console.py`), and these show it.
"""

import io
import re

# C0 but tab and newline, DEL, C1; what turns the direction of text; further ends of lines; bytes that are not UTF-8.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
# What a terminal without Unicode shows for the signs that our messages are written with.
PLAIN = {"×": "x", "±": "+-", "…": "...", "–": "-", "—": "-", "→": "->", "≤": "<=", "≥": ">=", "²": "2", "σ": "sigma"}


def shown(text: str) -> str:
    r"""The text with control characters, and bytes that are not UTF-8, as `\x1b` and the like; lines stay lines."""
    return _HIDDEN.sub(lambda found: escaped(found[0]), text)


def in_one_line(text: str) -> str:
    r"""The same with newlines as `\n`."""
    return shown(text).replace("\n", "\\n")


def escaped(sign: str) -> str:
    """A character by its number."""
    number = ord(sign)
    if 0xDC80 <= number <= 0xDCFF:  # a byte that was not UTF-8 (PEP 383)
        number -= 0xDC00
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def in_plain_letters(error: UnicodeError) -> tuple[str, int]:
    """The handler `plain` of encoding errors: signs by letters, anything else by its number."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(PLAIN.get(sign) or escaped(sign) for sign in error.object[error.start : error.end]), error.end


class NamedStream(io.TextIOWrapper):
    """Standard output or error under its name, which its errors of writing bear."""

    def __init__(self, stream: io.TextIOWrapper, called: str) -> None:
        super().__init__(
            stream.buffer,
            encoding=stream.encoding,
            errors="plain",
            line_buffering=stream.line_buffering,
            write_through=True,  # two of them share one buffer, and what is written first comes first
        )
        self.called = called
        self._below = stream  # which would close the buffer if nobody held it

    def write(self, text: str) -> int:
        """Write a text; the number of its characters."""
        try:
            return super().write(text)
        except OSError as error:
            error.filename = self.called
            raise

    def flush(self) -> None:
        """Bring to the system what was written."""
        try:
            super().flush()
        except OSError as error:
            error.filename = self.called
            raise

    def close(self) -> None:
        """Close nothing: the stream below is Python's own."""


class ShowingStream(NamedStream):
    """Standard output or error that shows what is printed. Rich's consoles write to `rich_proxied_file` instead, for
    their escapes are their own."""

    def __init__(self, stream: io.TextIOWrapper, called: str) -> None:
        super().__init__(stream, called)
        self.rich_proxied_file = NamedStream(stream, called)

    def write(self, text: str) -> int:
        """Write a text as it may be shown; the number of its characters."""
        super().write(shown(text))
        return len(text)
