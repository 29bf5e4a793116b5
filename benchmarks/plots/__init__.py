"""Figures of benchmark results."""
