"""Packing a dataset into tar shards."""
