"""Exports encoders for other programs: the weights, or the whole computation from uint8 pixels on.

What was written is read back and has to give the same numbers.
"""

import io
from collections.abc import Callable
from typing import Any

import torch
from safetensors.torch import load as safetensors_load
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

import ssl_core.encoders.build as encoders
from ssl_core.encoders.pixel_encoder import PixelEncoder
from ssl_core.encoders.pretrained import Pretrained
from ssl_core.encoders.small import VIT, small_vit_options
from ssl_core.encoders.timm_models import model_options
from ssl_core.encoders.tokens import TokenEncoder
from ssl_core.errors import TilespinError, UserError

TOLERANCE = 1e-3  # of a map's largest number: how far another runtime may be off
TIMM_TOLERANCE = 1e-5  # the same for plain timm, which runs the same operations


class ExportFailed(TilespinError, RuntimeError):
    """Reports that what was written is not what it should be; no file is left. The command line exits with 1."""


@torch.no_grad()
def export_encoder(one: Pretrained, size: int, format: str) -> tuple[bytes, str]:
    """Writes an encoder in a format for other programs and checks it on random pixels.

    Args:
        one: The encoder.
        size: Image side in pixels; counts for torchscript and onnx, which are traced at it.
        format: A key of FORMATS: safetensors, timm, torchscript or onnx.

    Returns:
        The file's content, and a sentence on how to use it.

    Raises:
        UserError: If the format cannot hold the encoder, or packages are missing.
        ExportFailed: If what was written does not give the encoder's own numbers.
    """
    encoder = one.network()
    return FORMATS[format](one, encoder.eval(), size)


def _safetensors(one: Pretrained, encoder: nn.Module, size: int) -> tuple[bytes, str]:
    contents = {
        "encoder": one.architecture,
        "size": one.built,
        "normalization": one.normalization,
        "mean": " ".join(map(str, one.mean)),
        "std": " ".join(map(str, one.std)),
    }
    data = safetensors_bytes(encoders.weights(encoder), {name: str(value) for name, value in contents.items()})
    again = encoders.build(one.architecture, one.built, one.seed + 1)
    again.load_state_dict(safetensors_load(data))
    _check_agreement(again.eval()(_pixels(size).float()), encoder(_pixels(size).float()), 0)
    return (
        data,
        f"weights of {one.architecture}, under the names of ssl_core.encoders.build.build; the rest is in its metadata",
    )


def _timm(one: Pretrained, encoder: nn.Module, size: int) -> tuple[bytes, str]:
    """Writes weights under timm's names.

    They are those of timm's whole model without its classifier, if that has no more weights than the encoder, or is
    wrapped whole by features_only, which leaves out what follows the last stage; otherwise those of features_only.
    """
    import timm

    name = one.architecture
    if isinstance(encoder, TokenEncoder):
        return _timm_transformer(one, encoder)
    if encoders.is_own(name) or name.startswith(encoders.TORCHVISION):
        raise UserError(f"--format timm: {name} is none of timm's encoders: take safetensors, torchscript or onnx")
    if encoders.has_small_stem(name, one.built):
        raise UserError(
            f"--format timm: this {name} was made for {one.built} px, with a stem that timm's has not: take "
            "safetensors, torchscript or onnx, or train at 64 px or more"
        )
    options = model_options(name, one.built)
    sized = {key: value for key, value in options.items() if key == "img_size"}
    x = _pixels(one.built if sized else max(size, encoders.SMALL_IMAGE_SIZE)).float()
    weights, wrapper = encoders.weights(encoder), encoders.feature_prefix(encoder)
    again, whole = encoders.build(name, one.built, one.seed + 1), timm.create_model(name, num_classes=0, **sized)
    again.load_state_dict(_load_bytes(weights))
    _check_agreement(again.eval()(x), encoder(x), 0)
    plain = {name.replace(".", "_"): name for name in whole.state_dict()}
    bare = {name.removeprefix(wrapper): tensor for name, tensor in weights.items()}
    own = {plain.get(name.replace(".", "_"), name): tensor for name, tensor in bare.items()}
    if own.keys() == whole.state_dict().keys():
        whole.load_state_dict(own)
        return _to_bytes(own), f"state dict for {_call(name, {'num_classes': 0, **sized})}"
    call = _call(name, {"features_only": True, **options})
    if wrapper:
        return _to_bytes(bare), f"state dict for {call}.{wrapper[:-1]}"
    return _to_bytes(weights), f"state dict for {call}"


def _timm_transformer(one: Pretrained, encoder: TokenEncoder) -> tuple[bytes, str]:
    """Writes the weights of a vision transformer under timm's names."""
    import timm
    from timm.models.vision_transformer import VisionTransformer

    weights = {name.removeprefix("model."): tensor for name, tensor in encoders.weights(encoder).items()}
    if one.architecture == VIT:
        options = small_vit_options(one.built)
        plain: Any = VisionTransformer(**options)
        call = f"timm.models.vision_transformer.VisionTransformer({_join(options)})"
    else:
        options = model_options(one.architecture, one.built)
        plain, call = timm.create_model(one.architecture, **options), _call(one.architecture, options)
    plain.load_state_dict(_load_bytes(weights))
    x = _pixels(one.built).float()
    _check_agreement([plain.eval().forward_features(x)], [encoder.tokens(x)], TIMM_TOLERANCE)
    return _to_bytes(weights), f"state dict for {call}"


def _call(name: str, options: dict[str, Any]) -> str:
    return f"timm.create_model({', '.join([repr(name), _join(options)]).removesuffix(', ')})"


def _join(options: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in options.items())


def _torchscript(one: Pretrained, encoder: nn.Module, size: int) -> tuple[bytes, str]:
    import warnings

    module, out = PixelEncoder(one, encoder).eval(), io.BytesIO()
    with warnings.catch_warnings():  # torch prefers torch.export by now, which C++ and phones do not read
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module, _pixels(size), check_trace=False)
        torch.jit.save(traced, out)
        again = torch.jit.load(io.BytesIO(out.getvalue()))
    for pixels in (_pixels(size, 3), _pixels(size, 1).float()):
        _check_agreement(again(pixels), module(pixels), TOLERANCE)
    return out.getvalue(), f"torch.jit.load(FILE)(pixels): uint8 or float32 {_describe_output(module, size)}"


def _onnx(one: Pretrained, encoder: nn.Module, size: int) -> tuple[bytes, str]:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  torch.onnx needs it
    except ImportError as error:
        raise UserError(f"--format onnx needs what is not installed ({error}): pip install -e '.[export]'") from error
    import contextlib
    import warnings

    module = PixelEncoder(one, encoder).eval()
    names = [f"stage{i + 1}" for i in range(len(module(_pixels(size))))]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                module,
                (_pixels(size),),
                input_names=["pixels"],
                output_names=names,
                dynamo=True,
                verbose=False,
                dynamic_shapes={"pixels": {0: torch.export.Dim("batch")}},
            )
        except Exception as error:  # many kinds, of torch.export and of the translation
            raise ExportFailed(f"{one.architecture} cannot be written as ONNX: {str(error).splitlines()[0]}") from error
    assert program is not None, "with dynamo=True the program is returned"
    data = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    pixels = _pixels(size, 3)
    _check_agreement(
        [torch.from_numpy(m) for m in session.run(None, {"pixels": pixels.numpy()})], module(pixels), TOLERANCE
    )
    return data, f"input `pixels`: uint8 {_describe_output(module, size)}"


FORMATS: dict[str, Callable[[Pretrained, nn.Module, int], tuple[bytes, str]]] = {
    "safetensors": _safetensors,
    "timm": _timm,
    "torchscript": _torchscript,
    "onnx": _onnx,
}


def _pixels(size: int, count: int = 2) -> Tensor:
    """Returns random pixels, [count, 3, size, size] uint8, the same each time."""
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def _to_bytes(weights: dict[str, Tensor]) -> bytes:
    out = io.BytesIO()
    torch.save(weights, out)
    return out.getvalue()


def _load_bytes(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return torch.load(io.BytesIO(_to_bytes(weights)), weights_only=True)


def _describe_output(module: nn.Module, size: int) -> str:
    shapes = ", ".join(str(list(m.shape[1:])) for m in module(_pixels(size)))
    return f"[b, 3, {size}, {size}] of 0..255, standardized inside -> maps of {shapes}"


def _check_agreement(found, expected, tolerance: float) -> None:
    """Compares maps.

    Raises:
        ExportFailed: If some map differs by more than `tolerance` of its largest number.
    """
    for i, (a, b) in enumerate(zip(found, expected, strict=True), start=1):
        apart = float((a - b).abs().max()) if a.shape == b.shape else float("inf")
        if not apart <= tolerance * float(b.abs().max()):
            raise ExportFailed(f"read back, the maps of stage {i} are off by {apart:.2g}: no file was left")
