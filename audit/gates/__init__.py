"""Conditions on a report, and the verdict and exit status that follow from them."""
