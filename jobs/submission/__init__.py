"""Prepares commands for a Ray cluster, follows them, and fetches their results."""
