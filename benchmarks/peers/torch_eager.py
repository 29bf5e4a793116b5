"""Plain torch, batch by batch where torch can."""

from benchmarks.harness.kernel_cases import CELL, MEAN, STD, ab_bins
from benchmarks.peers import eager


def _form(w):
    return dict(dtype=w.dtype, channels_last=w.channels_last)


def rotate(w):
    return lambda: eager.rotate(w.images, w.turns, MEAN, STD, **_form(w))


def rotate_all(w):
    return lambda: eager.rotate_all(w.images, MEAN, STD, **_form(w))


def shuffle_tiles(w):
    return lambda: eager.shuffle_tiles(w.images, w.orders, w.corners, w.tile, **_form(w))


def erase(w):
    return lambda: eager.erase(w.images, w.erased, MEAN, STD, **_form(w))


def crop_flip(w):
    return lambda: eager.crop_flip(w.images, w.flips, w.windows, w.size, MEAN, STD, **_form(w))


def multi_crop(w):
    def call():
        done = []
        for size, count, flips, boxes in w.of_each_view_size():
            images = w.images.repeat_interleave(count, 0)
            done.append(eager.crop_flip(images, flips.flatten(), boxes.flatten(0, 1), size, MEAN, STD, **_form(w)))
        return done

    return call


def photometric(w):
    return lambda: eager.photometric(w.images, w.factors, w.jitter, MEAN, STD, **_form(w))


def lab(w):
    bins = ab_bins(w.images.device)
    return lambda: eager.lab(w.images, bins, CELL, MEAN, STD, **_form(w))
