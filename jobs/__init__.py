"""The verbs a user runs. Composes the other rooms; the only place that knows W&B, tyro and rich."""
