"""Keeps the folder of a study: its files, lock, metrics, and warnings."""
