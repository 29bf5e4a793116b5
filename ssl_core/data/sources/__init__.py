"""Datasets, one file each, found by lying here.

A module has `opens(data) -> bool` (is this value of --data mine?) and `load(data, size) -> Source`.
"""
