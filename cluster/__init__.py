"""Runs callables on Ray and decides what happens when a machine fails. Knows no task and no encoder."""
