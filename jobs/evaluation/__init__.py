"""Evaluations of encoders as jobs, and the records that they leave."""
