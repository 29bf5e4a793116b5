"""Encoders: architectures, pretrained weights, and export."""
