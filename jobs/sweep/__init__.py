"""Sweeps of learning rates."""
