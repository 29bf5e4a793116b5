"""Loaders, which all deliver the same batches in the same order."""
