"""kornia, whose augmentations take the parameters of each image, in float32 NCHW: converting is part of the work."""

import kornia.augmentation as K
import torch
from kornia import enhance
from kornia.geometry.transform import crop_and_resize

from benchmarks.harness.kernel_cases import MEAN, STD

_MEAN, _STD = (torch.tensor([v / 255 for v in values]) for values in (MEAN, STD))


def _unit(w):
    """float32 [b, 3, h, w] in 0..1."""
    return w.images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format) / 255


def _normalize(unit, w):
    layout = torch.channels_last if w.channels_last else torch.contiguous_format
    done = enhance.normalize(unit, _MEAN.to(unit.device), _STD.to(unit.device))
    return done.to(w.dtype).contiguous(memory_format=layout)


def _turn(unit, turns):
    turn = K.RandomRotation90(times=(0, 3), resample="nearest", p=1.0)
    batch = dict(batch_prob=torch.ones(len(unit)), forward_input_shape=torch.tensor(unit.shape))
    return turn(unit, params=dict(times=turns.float(), **batch))


def rotate(w):
    return lambda: _normalize(_turn(_unit(w), w.turns), w)


def rotate_all(w):
    every = torch.arange(4, device=w.images.device).repeat(len(w.images))
    return lambda: _normalize(_turn(_unit(w).repeat_interleave(4, 0), every), w)


def erase(w):
    def hide(images, box):
        y, x, height, width = w.erased[:, box].float().unbind(1)
        batch = dict(batch_prob=torch.ones(len(images)), forward_input_shape=torch.tensor(images.shape))
        params = dict(xs=x, ys=y, widths=width, heights=height, values=torch.zeros_like(x), **batch)
        return K.RandomErasing(p=1.0)(images, params=params)

    def call():
        whole = _normalize(_unit(w), w)
        left = torch.ones_like(whole[:, :1])
        return hide(hide(whole, 0), 1), whole, (hide(hide(left, 0), 1) == 0).to(torch.uint8)

    return call


def crop_flip(w):
    def call():
        y, x, height, width = w.windows.float().unbind(1)
        corners = [(x, y), (x + width - 1, y), (x + width - 1, y + height - 1), (x, y + height - 1)]
        boxes = torch.stack([torch.stack(corner, 1) for corner in corners], 1)
        cut = crop_and_resize(_unit(w), boxes, (w.size, w.size))
        return _normalize(torch.where(w.flips.bool()[:, None, None, None], cut.flip(3), cut), w)

    return call


def photometric(w):
    steps = (
        enhance.adjust_brightness_accumulative,
        enhance.adjust_contrast_with_mean_subtraction,
        enhance.adjust_saturation_with_gray_subtraction,
        lambda images, turns: enhance.adjust_hue(images, turns * 2 * torch.pi),
    )

    def call():
        out = _unit(w)
        # one order a call: the images of each of the 24 orders as a group
        for order in w.jitter.unique(dim=0):
            group = (w.jitter == order).all(1).nonzero().squeeze(1)
            images, factors = out[group], w.factors[group]
            for step in order.tolist():
                images = steps[step](images, factors[:, step])
            out[group] = images
        return _normalize(out, w)

    return call
