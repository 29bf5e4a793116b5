"""Tracks runs in Weights & Biases, online and offline."""
