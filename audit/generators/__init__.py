"""Trained generators: their files, their training, what they make."""
