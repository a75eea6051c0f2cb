"""Conditions on a report, the verdict and the exit status that follow from them."""
