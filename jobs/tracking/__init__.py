"""Weights & Biases, online and offline."""
