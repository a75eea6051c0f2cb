"""Samples, the judge of attacked inputs, and what is known of each sample."""
