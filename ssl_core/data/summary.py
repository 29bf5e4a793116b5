"""Describes in one line how a dataset was understood, for people to see before anything runs."""

import numpy as np

from ssl_core.data.dataset import Source
from ssl_core.errors import some

CLASSES = 4  # how many classes are named


def summary(source: Source) -> str:
    """Returns a line about a dataset: its images, classes with how many images each has, and the source's notes."""
    images = f"{source.name}: {len(source.train):,} training images"
    if len(source.test):
        images = f"{source.name}: {len(source.train):,} training and {len(source.test):,} test images"
    return "; ".join([f"{images} of {source.size} px, {_classes(source)}", *source.notes])


def _classes(source: Source) -> str:
    if not source.classes:
        return "without labels"
    labels = np.concatenate([source.train.labels, source.test.labels])
    counts = np.bincount(labels[labels >= 0], minlength=len(source.classes)).tolist()
    named = [f"{name} {count:,}" for name, count in zip(source.classes, counts)]
    return f"{len(named):,} classes ({some(named, CLASSES)})"
