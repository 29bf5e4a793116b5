"""Runs sweeps of learning rates."""
