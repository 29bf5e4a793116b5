"""Measurements. Each prints and keeps machine, versions, repeats and medians, and compares within one run."""
