"""The samples, the judge of attacked inputs, and the results known for each sample."""
