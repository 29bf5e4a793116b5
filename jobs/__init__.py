"""Holds the verbs that a user runs. Composes the other packages; the only one that imports W&B, tyro and rich."""
