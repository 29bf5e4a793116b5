"""Kernels that turn uint8 NHWC images into a network's normalized input, one launch per call."""
