"""Trained generators: training, files, and measurements of the images that they generate."""
