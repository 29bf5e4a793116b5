"""Contains the ways to evaluate a frozen encoder: each file here is a protocol, found by lying here.

A protocol's module has
- `version`: an integer, part of its results' names; raise it when numbers would change
- `Config`: a frozen dataclass, the literature's hyper-parameters as its defaults
- `run(subject, config, seed) -> Result`
- `on`: what the subject is. "features": a `FrozenFeatures`, features that all such protocols share; "encoder": a
  `FrozenEncoder`, the encoder itself with its images
- `labels`: whether it needs labeled images
- `headline`: the name among the result's numbers that stands in tables, and `higher`: whether a higher one is better
"""
