"""Writes the features of an encoder for other programs, part by part, so that a killed command continues."""
