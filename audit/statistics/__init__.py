"""From arrays of radii and losses to accuracies with their intervals."""
