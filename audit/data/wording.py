"""Foreign text made fit for a one-line message: libraries quote raw bytes of a damaged file."""

LONGEST = 120


def brief(text: object) -> str:
    """The text on one line of printable characters, cut to `LONGEST`."""
    line = " ".join(str(text).split())
    shown = "".join(character if character.isprintable() else "?" for character in line)
    return shown if len(shown) <= LONGEST else shown[: LONGEST - 1] + "…"
