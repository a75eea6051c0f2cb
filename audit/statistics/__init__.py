"""Accuracies and their intervals, computed from arrays of radii and losses."""
