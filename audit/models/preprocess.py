"""Conversion of samples to model inputs: normalise, permute, reshape."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from audit.errors import ModelError, UsageError

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class InputSpec:
    """Conversion of a sample to a model input.

    Samples are in the box ``[low, high]``, images as ``(C, H, W)``; radii are measured there,
    before mean, standard deviation and layout.

    Attributes:
        sample: shape of one sample.
        shape: input shape of the model, batch first, ``None`` for dynamic sizes; empty if unknown.
        dtype: dtype of the model's input.
        layout: a permutation of ``chw`` for images, ``None`` for other samples.
        low, high: bounds of the box.
        mean, std: per channel or one value; the model receives ``(x - mean) / std``.
    """

    sample: tuple[int, ...]
    shape: Shape
    dtype: torch.dtype
    layout: str | None
    low: float = 0.0
    high: float = 1.0
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @property
    def batch(self) -> int | None:
        """Batch size that the model requires, if any."""
        return self.shape[0] if self.shape else None

    def prepare(self, x: Tensor) -> Tensor:
        """Convert samples ``(B, *sample)`` to model inputs, differentiably; keep the dtype."""
        if self.mean is not None:
            x = x - self._per_channel(self.mean, x)
        if self.std is not None:
            x = x / self._per_channel(self.std, x)
        if self.layout is not None and self.layout != "chw":
            x = x.permute(0, *("chw".index(axis) + 1 for axis in self.layout))
        target = _match(self.shape[1:], tuple(x.shape[1:])) if self.shape else tuple(x.shape[1:])
        assert target is not None
        return x.reshape(len(x), *target)

    def representable(self, x: Tensor, away_from: Tensor | None = None) -> Tensor:
        """Round samples to values that the model can receive: a lattice if inputs are integers.

        Float inputs are returned unchanged. Otherwise every value is rounded to the nearest value
        of the lattice that is inside both the box and the range of the dtype. With ``away_from``,
        values are rounded in the direction away from that sample.
        """
        if self.dtype.is_floating_point:
            return x
        mean = self._per_channel(self.mean or (0.0,), x)
        std = self._per_channel(self.std or (1.0,), x)
        limits = torch.iinfo(self.dtype)
        # An end of the box belongs to the lattice if only rounding moves it off.
        first = ((self.low - mean) / std - 1e-3).ceil().clamp_min(limits.min)
        last = ((self.high - mean) / std + 1e-3).floor().clamp_max(limits.max)
        steps = (x - mean) / std
        if away_from is None:
            steps = steps.round()
        else:
            # A value that only a rounding error moved off the lattice goes back to it.
            outwards = torch.where(x > away_from, (steps - 1e-3).ceil(), (steps + 1e-3).floor())
            steps = torch.where(x == away_from, steps.round(), outwards)
        steps = steps.clamp(first, last)
        return (steps * std + mean).clamp(self.low, self.high)

    def _per_channel(self, values: tuple[float, ...], x: Tensor) -> Tensor:
        return x.new_tensor(values).reshape(1, -1, *[1] * (x.dim() - 2))


def as_dtype(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast to the model's dtype; integers are rounded and clamped, without wrapping around."""
    if dtype.is_floating_point:
        return x.to(dtype)
    limits = torch.iinfo(dtype)
    return x.round().clamp(limits.min, limits.max).to(dtype)


def make_spec(
    *,
    sample: tuple[int, ...],
    shape: Shape,
    dtype: torch.dtype,
    layout: str | None,
    low: float,
    high: float,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
) -> InputSpec:
    """Check that the options fit the samples, and choose the layout if none is given.

    Raises:
        UsageError: layout, mean or std do not fit the samples.
        ModelError: no layout converts a sample to the model's input.
    """
    channels = sample[0] if len(sample) == 3 else 1
    for name, values in (("--mean", mean), ("--std", std)):
        if values is not None and len(values) not in (1, channels):
            raise UsageError(
                f"{name} has {len(values)} values but the samples have {channels} channel(s): "
                f"give one value{f', or {channels}' if channels > 1 else ''}."
            )
        if values is not None and not all(map(math.isfinite, values)):
            raise UsageError(f"{name} must be finite, found {_listed(values)}.")
    if std is not None and not all(value > 0 for value in std):
        raise UsageError(f"--std must be positive, found {_listed(std)}.")
    if layout is not None and len(sample) != 3:
        raise UsageError(
            f"--layout {layout} applies to images, but the samples have shape {sample}: omit it."
        )
    if layout is not None and sorted(layout) != ["c", "h", "w"]:
        raise UsageError(
            f"--layout must be a permutation of c, h, w such as hwc, found {layout!r}."
        )
    base = InputSpec(sample, shape, dtype, layout, low, high, mean, std)
    if layout is not None:
        candidates = [base]
    elif len(sample) == 3:
        usual = ("chw", "hwc", "whc")
        others = (name for name in map("".join, itertools.permutations("chw")) if name not in usual)
        candidates = [replace(base, layout=name) for name in (*usual, *others)]
    else:
        candidates = [base]
    # A layout that matches axis by axis is preferred to one that only has the right size.
    for exact in (True, False):
        for spec in candidates:
            if accepts(spec, exact=exact):
                return spec
    raise ModelError(
        f"The model takes inputs of shape {show_shape(shape)}, but one sample has shape {sample}"
        f"{'' if layout is None else f' (layout {layout})'}: "
        "check --layout, and that the samples have the channels and size the model expects."
    )


def accepts(spec: InputSpec, *, exact: bool) -> bool:
    """Return whether the model accepts a sample; ``exact``: axis by axis, without a reshape."""
    if not spec.shape:
        return True
    sizes = permuted(spec)
    tail = spec.shape[1:]
    if exact:
        return len(tail) == len(sizes) and all(
            want is None or want == size for want, size in zip(tail, sizes, strict=True)
        )
    return _match(tail, sizes) is not None


def permuted(spec: InputSpec) -> tuple[int, ...]:
    """Return the shape of one sample after the layout's permutation."""
    if spec.layout is None:
        return spec.sample
    return tuple(spec.sample["chw".index(axis)] for axis in spec.layout)


def alternatives(spec: InputSpec) -> Iterator[tuple[str, InputSpec]]:
    """Yield other conversions to try when accuracy is at chance level, with their options."""
    if len(spec.sample) == 3:
        for axes in itertools.permutations("chw"):
            layout = "".join(axes)
            other = replace(spec, layout=layout)
            # With one channel only the order of height and width matters.
            same = spec.sample[0] == 1 and layout.replace("c", "") == (
                spec.layout or "chw"
            ).replace("c", "")
            if layout != spec.layout and not same and accepts(other, exact=False):
                yield f"--layout {layout}", other
    if spec.mean is None and spec.std is None:
        yield "--std 1/255 (inputs of 0 to 255)", replace(spec, std=(1 / 255,))
        yield "--mean .5 --std .5 (inputs of -1 to 1)", replace(spec, mean=(0.5,), std=(0.5,))
        if len(spec.sample) == 3 and spec.sample[0] == 3:
            yield (
                "--mean .485,.456,.406 --std .229,.224,.225 (ImageNet)",
                replace(spec, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
            )
            yield (
                "--mean .4914,.4822,.4465 --std .2471,.2435,.2616 (CIFAR-10)",
                replace(spec, mean=(0.4914, 0.4822, 0.4465), std=(0.2471, 0.2435, 0.2616)),
            )
        else:
            yield (
                "--mean .1307 --std .3081 (MNIST)",
                replace(spec, mean=(0.1307,), std=(0.3081,)),
            )
    else:
        yield "no --mean and --std", replace(spec, mean=None, std=None)


def show_shape(shape: Shape) -> str:
    """Write a shape with dynamic dimensions as ``N``."""
    return "(" + ", ".join("N" if size is None else str(size) for size in shape) + ")"


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _match(tail: Shape, sizes: tuple[int, ...]) -> tuple[int, ...] | None:
    """Fill the dynamic dimensions of ``tail`` from ``sizes``; None if they do not fit."""
    if len(tail) == len(sizes):
        filled = tuple(s if want is None else want for want, s in zip(tail, sizes, strict=True))
    elif sum(size is None for size in tail) <= 1:
        known = math.prod(size for size in tail if size is not None)
        rest = math.prod(sizes) // max(known, 1)
        filled = tuple(rest if size is None else size for size in tail)
    else:
        return None
    return filled if math.prod(filled) == math.prod(sizes) else None
