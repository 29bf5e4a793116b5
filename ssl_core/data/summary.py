"""Describes in one line how a dataset was understood, for people to see before anything runs."""

import numpy as np

from ssl_core.data.dataset import Source
from ssl_core.errors import some

CLASSES = 4  # how many classes are named


def summary(source: Source) -> str:
    """Returns a line about a dataset: its images, classes with how many images each has, and the source's notes."""
    images, labeled = f"{len(source.train):,} training images", int(source.train.labeled.sum())
    if 0 < labeled < len(source.train):
        images = f"{labeled:,} labeled and {len(source.train) - labeled:,} unlabeled training images"
        images += f", {len(source.test):,} test images" if len(source.test) else ""
    elif len(source.test):
        images = f"{len(source.train):,} training and {len(source.test):,} test images"
    return "; ".join([f"{source.name}: {images} of {source.size} px, {_classes(source)}", *source.notes])


def _classes(source: Source) -> str:
    if source.masks:
        counts = np.sum([of[:-1] for of in source.masks.pixels.values()], 0)
        named = [f"{name} {share:.1%}" for name, share in zip(source.masks.classes, counts / counts.sum())]
        return f"masks of {len(named):,} classes ({some(named, CLASSES)} of the pixels)"
    if not source.classes:
        return "without labels"
    labels = np.concatenate([source.train.labels, source.test.labels])
    if source.multilabel:
        counts, images = labels.sum(0), labels.any(1).sum()
        several = f", {counts.sum() / images:.3g} an image"
    else:
        counts, several = np.bincount(labels[labels >= 0], minlength=len(source.classes)), ""
    named = [f"{name} {count:,}" for name, count in zip(source.classes, counts.tolist())]
    return f"{len(named):,} classes ({some(named, CLASSES)}){several}"
