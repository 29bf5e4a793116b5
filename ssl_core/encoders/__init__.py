"""Builds encoders, reads pretrained weights into them, and exports them."""
