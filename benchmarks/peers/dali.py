"""DALI pipelines fed with the same images and labels; no pipelining, so that a call does one batch's work."""

import numpy as np
import torch
from nvidia.dali import fn, pipeline_def, types

from benchmarks.harness.kernel_cases import MEAN, STD

_TYPES = {torch.float32: types.FLOAT, torch.float16: types.FLOAT16, torch.uint8: types.UINT8}


def tensors(outputs):
    """What a pipeline returned, in our shapes: NCHW, turns, tiles and views of one size in the batch dimension."""
    done = []
    for output in outputs:
        output = output.as_cpu() if hasattr(output, "as_cpu") else output
        batch = torch.from_numpy(np.stack([np.asarray(output.at(i)) for i in range(len(output))]))
        done.append(batch.movedim(-1, -3) if output.layout().endswith("C") else batch)
    if len(done) >= 4:
        shapes = dict.fromkeys(batch.shape for batch in done)
        groups = ([batch for batch in done if batch.shape == shape] for shape in shapes)
        done = [torch.stack(group, 1) for group in groups]
    return [batch.flatten(0, 1) if batch.dim() == 5 else batch for batch in done]


def _source(array, **options):
    array = np.ascontiguousarray(array)
    return fn.external_source(source=lambda: array, batch=True, no_copy=True, **options)


def _run(w, graph):
    """A call of the pipeline that graph(images) defines; the outputs stay DALI's until they are looked at."""
    if w.dtype not in _TYPES:
        return None  # no bfloat16 in DALI's pipelines
    device = "gpu" if w.images.is_cuda else "cpu"

    @pipeline_def(
        batch_size=len(w.images),
        num_threads=torch.get_num_threads(),
        device_id=0 if w.images.is_cuda else None,
        exec_async=False,
        exec_pipelined=False,
        prefetch_queue_depth=1,
    )
    def define():
        images = _source(w.images.cpu().numpy(), layout="HWC")
        return graph(images.gpu() if device == "gpu" else images)

    pipeline = define()
    pipeline.build()
    return pipeline.run


def _normalize(images, w, **options):
    layout = "HWC" if w.channels_last else "CHW"
    return fn.crop_mirror_normalize(images, dtype=_TYPES[w.dtype], output_layout=layout, mean=MEAN, std=STD, **options)


def _angles(turns):
    return _source(turns.cpu().numpy().astype(np.float32) * 90)


def _turn(images, angle, w):
    return fn.rotate(images, angle=angle, interp_type=types.INTERP_NN, keep_size=True)


def rotate(w):
    return _run(w, lambda images: _normalize(_turn(images, _angles(w.turns), w), w))


def rotate_all(w):
    return _run(w, lambda images: tuple(_normalize(_turn(images, 90.0 * k, w), w) for k in range(4)))


def shuffle_tiles(w):
    t, n = w.orders.shape[1], w.tile
    place = w.corners.gather(1, w.orders[..., None].expand(-1, -1, 2)).cpu().numpy().astype(np.int32)
    strip = np.broadcast_to(np.stack([np.arange(t) * n, np.zeros(t)], 1).astype(np.int32), place.shape)
    same = np.arange(len(place), dtype=np.int32)[:, None].repeat(t, 1)

    def graph(images):
        tiles = fn.multi_paste(
            images,
            in_ids=_source(same),
            in_anchors=_source(place),
            shapes=_source(np.full_like(place, n)),
            out_anchors=_source(strip),
            output_size=(t * n, n),
        )
        tiles = fn.reshape(tiles, shape=[t, n, n, 3], layout="FHWC")
        done = fn.normalize(tiles, axis_names="HW", dtype=_TYPES[w.dtype])
        return done if w.channels_last else fn.transpose(done, perm=[0, 3, 1, 2])

    return _run(w, graph)


def erase(w):
    places, sizes = (
        w.erased[..., part].reshape(len(w.images), -1).cpu().numpy().astype(np.float32)
        for part in (slice(0, 2), slice(2, 4))
    )

    def graph(images):
        whole = _normalize(images, w)
        boxes = dict(anchor=_source(places), shape=_source(sizes), axis_names="HW")
        ones = fn.constant(idata=[1], shape=[w.size, w.size, 1], dtype=types.UINT8, layout="HWC")
        kept = fn.erase(ones.gpu() if w.images.is_cuda else ones, fill_value=0, **boxes)
        return fn.erase(whole, fill_value=0.0, **boxes), whole, 1 - kept

    return _run(w, graph)


def _crop(images, w, flips, boxes, size):
    boxes, flips = (labels.cpu().numpy().astype(np.int32) for labels in (boxes, flips))
    cut = fn.slice(images, start=_source(boxes[:, :2]), shape=_source(boxes[:, 2:]), axis_names="HW")
    sized = fn.resize(cut, size=[size, size], interp_type=types.INTERP_LINEAR, antialias=True)
    return _normalize(sized, w, mirror=_source(flips))


def crop_flip(w):
    return _run(w, lambda images: _crop(images, w, w.flips, w.windows, w.size))


def multi_crop(w):
    def graph(images):
        done = []
        for size, count, flips, boxes in w.of_each_view_size():
            done += [_crop(images, w, flips[:, k], boxes[:, k], size) for k in range(count)]
        return tuple(done)

    return _run(w, graph)
