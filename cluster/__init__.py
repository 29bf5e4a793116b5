"""Ray: where callables run and what happens when a machine fails. Knows no task and no encoder."""
