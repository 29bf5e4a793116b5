"""One pretraining run, on one worker or several."""
