"""The kernels' work in plain torch and torchvision: what one would write without them."""

import torch
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as V


def normalize(pixels, mean, std, dtype=torch.float32, channels_last=False):
    """[n, h, w, c] uint8 or float, in 0..255 -> [n, c, h, w] of dtype."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    mean, std = (torch.tensor(v, device=pixels.device) for v in (mean, std))
    return ((pixels.float() - mean) / std).to(dtype).permute(0, 3, 1, 2).contiguous(memory_format=layout)


def rotate(images, turns, mean, std, **form):
    """One turn for each image: the images of each turn as a group."""
    out = torch.empty_like(images)
    for k in range(4):
        group = (turns == k).nonzero().squeeze(1)
        out[group] = images[group].rot90(k, (1, 2))
    return normalize(out, mean, std, **form)


def rotate_all(images, mean, std, **form):
    """All four turns of each image."""
    return normalize(torch.stack([images.rot90(k, (1, 2)) for k in range(4)], 1).flatten(0, 1), mean, std, **form)


def shuffle_tiles(images, permutations, corners, tile, dtype=torch.float32, channels_last=False):
    """Cut, permute, standardize each tile and channel."""
    b, t = permutations.shape
    index = torch.arange(tile, device=images.device)
    place = corners.gather(1, permutations[..., None].expand(-1, -1, 2))  # [b, t, 2]
    rows, columns = place[..., :1] + index, place[..., 1:] + index
    batch = torch.arange(b, device=images.device)[:, None, None, None]
    tiles = images[batch, rows[:, :, :, None], columns[:, :, None, :]].flatten(0, 1).float()
    mean, std = tiles.mean((1, 2), keepdim=True), tiles.std((1, 2), keepdim=True, correction=0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return ((tiles - mean) / std.clamp(min=1)).to(dtype).permute(0, 3, 1, 2).contiguous(memory_format=layout)


def erase(images, boxes, mean, std, **form):
    """Rectangles become the mean; also the whole image and the mask."""
    b, size = images.shape[:2]
    index = torch.arange(size, device=images.device)
    low, high = boxes[..., :2, None], (boxes[..., :2] + boxes[..., 2:])[..., None]
    within = (index >= low) & (index < high)  # [b, n, 2, size]
    mask = (within[:, :, 0, :, None] & within[:, :, 1, None, :]).any(1)[:, None]
    whole = normalize(images, mean, std, **form)
    # masked_fill would forget channels_last
    return torch.where(mask, torch.zeros_like(whole), whole), whole, mask.to(torch.uint8)


def crop_flip(images, flips, boxes, size, mean, std, **form):
    """Each image's box, resized with antialiasing and flipped: torchvision's random-resized-crop, image by image."""
    rows = []
    for image, flip, (y, x, height, width) in zip(images, flips.tolist(), boxes.tolist()):
        window = image[y : y + height, x : x + width].permute(2, 0, 1)[None].float()
        row = F.interpolate(window, (size, size), mode="bilinear", antialias=True)
        rows.append(row.flip(3) if flip else row)
    return normalize(torch.cat(rows).permute(0, 2, 3, 1), mean, std, **form)


def photometric(images, factors, order, mean, std, **form):
    """Brightness, contrast, saturation and hue in each image's own order: torchvision's ColorJitter, image by image."""
    steps = (V.adjust_brightness, V.adjust_contrast, V.adjust_saturation, V.adjust_hue)
    rows = []
    for image, factor, turns in zip(images, factors.tolist(), order.tolist()):
        row = image.permute(2, 0, 1).float() / 255
        for step in turns:
            row = steps[step](row, factor[step])
        rows.append(row)
    return normalize(torch.stack(rows).permute(0, 2, 3, 1) * 255, mean, std, **form)


def lab(images, bins, cell, mean, std, **form):
    """Lightness, and the bins of cells by their mean color; bins: int64 [25, 25], the number of each square of ab."""
    b, size = images.shape[:2]
    n = size // cell
    v = images.float() / 255
    light = torch.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
    color = light.view(b, n, cell, n, cell, 3).mean((2, 4))
    to_xyz = torch.tensor(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], device=images.device
    )
    to_xyz = to_xyz / to_xyz.sum(1, keepdim=True)
    x, y, z = _cie(color @ to_xyz.T).unbind(3)
    a, b = ((difference / 10 + 12.5).long() for difference in (500 * (x - y), 200 * (y - z)))
    lightness = 116 * _cie(light @ to_xyz[1]) - 16
    return normalize((lightness * 2.55)[..., None].expand(-1, -1, -1, 3), mean, std, **form), bins[a, b]


def _cie(t):
    """CIELAB's cube root, which is a line near 0."""
    return torch.where(t > (6 / 29) ** 3, t ** (1 / 3), t * (29 / 6) ** 2 / 3 + 4 / 29)
