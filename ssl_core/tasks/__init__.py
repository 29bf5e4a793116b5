"""The pretext tasks, one file each, found by lying here."""
