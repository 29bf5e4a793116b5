"""Loaders of batches, all of which deliver the same images in the same order."""
