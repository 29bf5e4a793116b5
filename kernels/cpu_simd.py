"""Weighted sums of pixels in vector registers: numba's compiler makes vectors of long loops only, not of one pixel."""

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.extending import intrinsic

from kernels.cpu_jit import jit_loop

WORDS = 4  # of 64 bits, in a vector: as many as a pixel has channels, and one


@intrinsic
def _weigh_words(typing, source, start, step, weights, row, target, place):
    """Computes target[place : place + WORDS] = the sum over k of weights[row, k] * source[start + k * step :][:WORDS],
    in lanes as wide as the weights."""
    bits = weights.dtype.bitwidth
    lanes = ir.VectorType(ir.IntType(bits), 64 * WORDS // bits)
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes.count), None)

    def generate(context, builder, signature, arguments):
        def array(index):
            return context.make_array(signature.args[index])(context, builder, arguments[index])

        def vector(words, first):
            return builder.bitcast(builder.gep(words.data, [first]), lanes.as_pointer())

        source, weights, target = array(0), array(3), array(5)
        _, start, step, _, row, _, place = arguments
        count = builder.extract_value(weights.shape, 1)
        total = cgutils.alloca_once_value(builder, ir.Constant(lanes, None))
        with cgutils.for_range(builder, count) as taps:
            place_of_weight = builder.add(builder.mul(row, count), taps.index)
            weight = builder.load(builder.gep(weights.data, [place_of_weight]))
            one = builder.insert_element(ir.Constant(lanes, ir.Undefined), weight, ir.IntType(32)(0))
            every = builder.shuffle_vector(one, one, zeros)
            words = builder.load(vector(source, builder.add(start, builder.mul(taps.index, step))), align=8)
            builder.store(builder.add(builder.load(total), builder.mul(words, every)), total)
        builder.store(builder.load(total), vector(target, place), align=8)
        return context.get_dummy_value()

    whole = types.intp
    return types.void(source, whole, whole, weights, whole, target, whole), generate


@jit_loop
def weigh_pixels(line, c, firsts, weights, totals):
    """Weighs a line of pixels.

    Computes totals[c * j + channel] = the sum over k of weights[j, k] * line[c * (firsts[j] + k) + channel].

    Args:
        line: uint64, c words for every firsts[j] + k, and WORDS more, of any value.
        c: Channels of a pixel, at most WORDS.
        firsts: int64 [n], the first pixel of each sum.
        weights: uint64 [n, taps]; or uint32 for sums, modulo 2^32, of both halves of the words.
        totals: The result, uint64, c words for every j, and WORDS more, of any value.
    """
    for j in range(len(firsts)):
        _weigh_words(line, c * firsts[j], c, weights, j, totals, c * j)  # pyright: ignore[reportCallIssue]  # numba passes typing
