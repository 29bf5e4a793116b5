"""Weighted sums of pixels in vector registers: numba's compiler makes vectors of long loops only, not of one pixel."""

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.extending import intrinsic

from kernels.compiled import loop

_HALVES = ir.VectorType(ir.IntType(32), 8)  # of four words


@intrinsic
def _weigh_four_words(typing, source, start, weights, row, count, target, place):
    """target[place : place + 4] = the sum over k < count of weights[row, k] * source[start + 3 * k :][:4], where
    source and target hold two numbers in the 32-bit halves of each word."""

    def generate(context, builder, signature, arguments):
        source, start, weights, row, count, target, place = arguments
        source, weights, target = (
            context.make_array(kind)(context, builder, value)
            for kind, value in zip((signature.args[0], signature.args[2], signature.args[5]), (source, weights, target))
        )

        def halves(array, word):
            return builder.bitcast(builder.gep(array.data, [word]), _HALVES.as_pointer())

        total = cgutils.alloca_once_value(builder, ir.Constant(_HALVES, [0] * _HALVES.count))
        first = builder.mul(row, builder.extract_value(weights.shape, 1))
        with cgutils.for_range(builder, count) as taps:
            word = builder.add(start, builder.mul(taps.index, taps.index.type(3)))
            weight = builder.load(builder.gep(weights.data, [builder.add(first, taps.index)]))
            one = builder.insert_element(
                ir.Constant(_HALVES, ir.Undefined), builder.trunc(weight, _HALVES.element), ir.IntType(32)(0)
            )
            every = builder.shuffle_vector(one, one, ir.Constant(_HALVES, [0] * _HALVES.count))
            pixel = builder.load(halves(source, word), align=8)
            builder.store(builder.add(builder.load(total), builder.mul(pixel, every)), total)
        builder.store(builder.load(total), halves(target, place), align=8)
        return context.get_dummy_value()

    return types.void(source, types.intp, weights, types.intp, types.intp, target, types.intp), generate


@loop
def weigh_pixels(pair, firsts, weights, totals):
    """totals[3 * j + channel], the sum over k of weights[j, k] * pair[3 * (firsts[j] + k) + channel], of two rows of
    pixels at once, in the halves of uint64 words; one word more is written. pair has a pixel for every weight."""
    for j in range(len(firsts)):
        _weigh_four_words(pair, 3 * firsts[j], weights, j, weights.shape[1], totals, 3 * j)
