"""A scan: its options, attacks, checks, and the report it ends in."""
