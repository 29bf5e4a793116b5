"""Evaluates encoders as jobs, and writes the records that they leave."""
