"""Ways to judge a frozen encoder, one file each, found by lying here.

A protocol's module has `version` (part of its results' names: raise it when numbers would change), a `Config`
dataclass and `run(subject, config, seed) -> Result`.
"""
