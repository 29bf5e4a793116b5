"""Contains what learns: tasks, encoders, data, the training loop and the evaluators. It imports neither Ray nor W&B."""
