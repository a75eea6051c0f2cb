"""Foreign strings (paths, names, messages) made safe for the format that they are written to."""

import unicodedata
from pathlib import PureWindowsPath
from urllib.parse import quote

INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories of controls, directions, lone surrogates and line breaks."""

MARKDOWN_ESCAPES = str.maketrans(
    {**{c: f"\\{c}" for c in "\\`*_{}[]()#+!|~$"}, "<": "&lt;", ">": "&gt;", "&": "&amp;",
     "\n": " ", "\r": " "}
)  # fmt: skip

XML_FORBIDDEN = {code: None for code in range(32) if chr(code) not in "\t\n\r"} | {
    0xFFFE: None,
    0xFFFF: None,
}
"""Characters that an XML document cannot contain."""


def escape_invisible(text: str) -> str:
    """Return the text with control, direction and line characters written as escapes."""
    return "".join(f"\\u{ord(c):04x}" if unicodedata.category(c) in INVISIBLE else c for c in text)


def escape_markdown(text: str) -> str:
    """Return Markdown that shows the text literally."""
    kept = "".join(c for c in text if c.isprintable() or c in "\n\r")
    return kept.translate(MARKDOWN_ESCAPES)


def remove_non_xml(text: str) -> str:
    """Return the text without the characters that XML forbids."""
    return text.translate(XML_FORBIDDEN)


def artifact_uri(path: str) -> str:
    r"""Return the URI reference of a file path (RFC 3986).

    A relative path stays a relative reference: its colons are percent-encoded, because a first
    segment such as ``net:v1.onnx`` would otherwise be read as an absolute URI of scheme ``net``
    (section 4.2). Windows paths with a drive (``C:\net.onnx``) or a host (``\\host\net.onnx``)
    become ``file`` URIs. Repeated leading slashes become one: two would name a host.
    """
    parts = PureWindowsPath(path)
    if parts.drive and parts.root and not path.startswith("//"):
        return parts.as_uri()
    encoded = quote(path.replace("\\", "/"), safe="/")
    return "/" + encoded.lstrip("/") if encoded.startswith("/") else encoded
