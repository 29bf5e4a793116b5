"""Files, object stores, caches, checkpoints, and retries."""
