"""A fact about a model that `audit inspect` shows to the user."""

Fact = tuple[str, str]
"""Name of the fact, and its value as text."""
