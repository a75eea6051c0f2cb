"""Output for every console: characters that its encoding lacks are replaced instead of failing.

A redirected Windows console uses cp1252, and a build server may use ASCII. Without replacement, one
character that such an encoding lacks would abort a scan after its last sample.
"""

import codecs
import io
import sys

HANDLER = "audit-readable"
"""Name of the error handler for standard output and standard error."""

PLAIN = "audit-ascii"
"""ASCII under another name: the command framework writes UTF-8 to every stream whose encoding is
called ASCII, even if the console cannot show it."""

SYMBOLS = {
    "–": "-", "—": "-", "−": "-", "‐": "-", "‑": "-", "…": "...", "·": ".", "•": "*", "×": "x",
    "÷": "/", "±": "+/-", "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~", "√": "sqrt", "∞": "inf",
    "→": "->", "←": "<-", "↔": "<->", "⇒": "=>", "↑": "^", "↓": "v", "‘": "'", "’": "'", "“": '"',
    "”": '"', "²": "^2", "½": "1/2", "✓": "+", "✗": "x", "\u00a0": " ", "\u202f": " ",
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "Δ": "Delta", "ε": "epsilon",
    "η": "eta", "θ": "theta", "λ": "lambda", "μ": "mu", "σ": "sigma", "Σ": "sum",
}  # fmt: skip
"""Symbols that this program prints, in readable ASCII."""

LINES = {"─━┄┅┈┉╌╍═╴╶╸╺╼╾": "-", "│┃┆┇┊┋╎╏║╵╷╹╻╽╿": "|", "╱": "/", "╲": "\\"}
"""Box-drawing characters; those that are not listed are corners or crossings."""


def prepare_console() -> None:
    """Make standard output and standard error replace what they cannot encode."""
    codecs.register_error(HANDLER, _replace)
    codecs.unregister(_plain)  # otherwise a second call in one process would register it twice
    codecs.register(_plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            ascii_only = codecs.lookup(stream.encoding).name in ("ascii", PLAIN)
            stream.reconfigure(encoding=PLAIN if ascii_only else None, errors=HANDLER)


def readable(character: str) -> str:
    """Return the ASCII replacement of a character, or a question mark."""
    code = ord(character)
    if 0x2500 <= code < 0x2580:
        return next((ascii_ for lines, ascii_ in LINES.items() if character in lines), "+")
    if 0x2580 <= code < 0x25A0:
        return "#"  # blocks: bars
    if 0x2800 <= code < 0x2900:
        return "*"  # Braille patterns: spinners
    return SYMBOLS.get(character, "?")


def _replace(error: UnicodeError) -> tuple[str, int]:
    """Replace the characters of an encoding error; the signature of `codecs.register_error`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    failed = error.object[error.start : error.end]
    return "".join(map(readable, failed)), error.end


def _plain(name: str) -> codecs.CodecInfo | None:
    """Return the codec for the name `PLAIN`; the signature of `codecs.register`."""
    if name.replace("_", "-") != PLAIN:
        return None
    ascii_ = codecs.lookup("ascii")
    return codecs.CodecInfo(
        ascii_.encode,
        ascii_.decode,
        streamreader=ascii_.streamreader,
        streamwriter=ascii_.streamwriter,
        incrementalencoder=ascii_.incrementalencoder,
        incrementaldecoder=ascii_.incrementaldecoder,
        name=PLAIN,
    )


def write(text: str, *, utf8: bool = False) -> None:
    """Write to standard output.

    Args:
        text: text to write.
        utf8: whether to write UTF-8 regardless of the console, as for formats read by programs.

    Raises:
        BrokenPipeError: the reader has closed the pipe.
    """
    stream = sys.stdout
    if utf8 and isinstance(stream, io.TextIOWrapper):
        stream.flush()
        stream.buffer.write(text.encode("utf-8"))
        stream.buffer.flush()
    else:
        stream.write(text)
        stream.flush()
