"""Public Python API: one module per function, each imported when it is first used."""
