"""Learning: tasks, encoders, data, the training loop and the evaluators. Knows neither Ray nor W&B."""
