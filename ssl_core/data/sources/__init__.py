"""Datasets, one file each, found by lying here.

A module has `opens(data) -> bool` (is this value of --data mine?) and `load(data, size) -> Source`. One that takes
what nobody else knows says `FALLBACK = True` and is asked last.
"""
