"""Whole scans by two revisions of the program: every number is the same, or is listed."""
