"""Views of several sizes without a launch for all of them: one for each size, of copies of the images."""

from kernels.crop_flip import crop_flip as _one_size


def multi_crop(w):
    def call():
        done = []
        for size, count, flips, boxes in w.of_each_view_size():
            images = w.images.repeat_interleave(count, 0)
            done.append(_one_size(images, flips.flatten(), boxes.flatten(0, 1), size=size, **w.output))
        return done

    return call
