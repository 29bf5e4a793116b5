"""Evaluates what an encoder has learned: by probes on frozen features, fine-tuning and measures that need no labels.

`frozen_encoder` holds an encoder and the images that it is evaluated on, `features` extracts its features once, and
each module of `protocols` computes one protocol's numbers of either.
"""
