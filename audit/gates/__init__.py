"""Conditions on a report, and what follows from them."""
