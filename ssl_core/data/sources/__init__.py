"""Kinds of datasets, one module each, found because they are in this package.

A module has `opens(data) -> bool`, which says whether a value of --data is of its kind, and `load(data, size) ->
Source`. One for what no other module opens has `FALLBACK = True` and is asked last. One for a dataset with a name of
its own has it as `NAME`.
"""
