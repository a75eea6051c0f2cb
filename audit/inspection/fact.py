"""A fact about a model, as it is shown to the user."""

Fact = tuple[str, str]
"""Name of a fact, and what was found."""
