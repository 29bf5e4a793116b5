"""Runs a study's jobs, here or on Ray, with progress and signals."""
