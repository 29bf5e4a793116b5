"""Kernels that turn uint8 NHWC images into a network's normalised input, one launch per call."""
