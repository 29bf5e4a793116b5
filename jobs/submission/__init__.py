"""Commands that run on a Ray cluster, and their results."""
