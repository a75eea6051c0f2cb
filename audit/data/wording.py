"""Foreign text made fit for a one-line message: libraries quote raw bytes of a damaged file."""

LONGEST = 120


def brief(text: object, longest: int = LONGEST) -> str:
    """The text on one line of printable characters, cut to `longest` of them."""
    line = " ".join(str(text).split())
    shown = "".join(character if character.isprintable() else "?" for character in line)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"
