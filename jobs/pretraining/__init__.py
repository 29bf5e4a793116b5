"""Trains one pretraining run, on one worker or several."""
