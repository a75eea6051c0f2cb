"""Resampling of planes: one small matrix per axis, so that every mode is a linear map."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audit.models.onnx.dtypes import bounded
from audit.models.onnx.node import Kernel, Node, operator, python_numbers

COORDINATES = frozenset(
    [
        "half_pixel",
        "half_pixel_symmetric",
        "pytorch_half_pixel",
        "align_corners",
        "asymmetric",
        "tf_crop_and_resize",
    ]
)
NEAREST = frozenset(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])


@dataclass(frozen=True)
class Rule:
    """Rule that turns an output coordinate into weights over input pixels."""

    mode: str
    coordinate: str
    nearest: str
    cubic: float
    exclude_outside: bool
    antialias: bool


@dataclass(frozen=True)
class Axis:
    """One axis: input and output size, scale = output/input, and the region of interest."""

    source: int
    target: int
    scale: float
    roi: tuple[float, float] = (0.0, 1.0)


def _place(i: int, axis: Axis, coordinate: str, kind: type[np.floating[Any]]) -> Any:
    """Return the coordinate of output pixel i among the input pixels."""
    source, target, scale = kind(axis.source), axis.target, kind(axis.scale)
    length = scale * source  # the output size before it was rounded down
    if coordinate == "align_corners":
        return i * (source - 1) / (length - 1) if length != 1 else 0.0
    if coordinate == "asymmetric":
        return i / scale
    if coordinate == "tf_crop_and_resize":
        start, end = axis.roi
        if target == 1:
            return 0.5 * (start + end) * (source - 1)
        return start * (source - 1) + i * (end - start) * (source - 1) / (length - 1)
    if coordinate == "pytorch_half_pixel" and target == 1:
        return 0.0
    if coordinate == "half_pixel_symmetric":
        shift = (source / 2) * (1 - target / length)
        return shift + (i + 0.5) / scale - 0.5
    return (i + 0.5) / scale - 0.5


def _weight(distance: float, rule: Rule) -> float:
    """Evaluate the interpolation kernel at a distance in (stretched) input pixels."""
    d, a = abs(distance), rule.cubic
    if rule.mode == "linear":
        return max(1 - d, 0.0)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def _nearest(i: int, axis: Axis, rule: Rule) -> int:
    """Return the input pixel to copy.

    Raises:
        ValueError: the last bit of the coordinate decides, which runtimes compute differently.
    """
    rounding = {
        "round_prefer_floor": lambda p: math.ceil(p - 0.5),
        "round_prefer_ceil": lambda p: math.floor(p + 0.5),
        "floor": math.floor,
        "ceil": math.ceil,
    }[rule.nearest]
    places = [_place(i, axis, rule.coordinate, kind) for kind in (np.float32, np.float64)]
    chosen = {min(max(int(rounding(float(place))), 0), axis.source - 1) for place in places}
    if len(chosen) > 1:
        raise ValueError(f"output pixel {i} of {axis.target} lies between two input pixels")
    return chosen.pop()


@functools.lru_cache(maxsize=64)
def _matrix(axis: Axis, rule: Rule) -> NDArray[np.float64]:
    """Return weights (target, source); a row of NaN is a point outside the region of interest."""
    matrix = np.zeros((axis.target, axis.source))
    stretch = max(1 / axis.scale, 1.0) if rule.antialias else 1.0
    radius = (1 if rule.mode == "linear" else 2) * stretch
    for i in range(axis.target):
        # In float32 as in runtimes, because the last bit decides at the border of the region.
        place = float(_place(i, axis, rule.coordinate, np.float32))
        if rule.coordinate == "tf_crop_and_resize" and not 0 <= place <= axis.source - 1:
            matrix[i] = np.nan
            continue
        if rule.mode == "nearest":
            matrix[i, _nearest(i, axis, rule)] = 1
            continue
        taps = range(math.floor(place - radius) + 1, math.ceil(place + radius))
        weights = {tap: _weight((tap - place) / stretch, rule) for tap in taps}
        if rule.exclude_outside or rule.antialias:
            inside = {tap: w for tap, w in weights.items() if 0 <= tap < axis.source}
            weights = inside if rule.exclude_outside else weights
            total = sum(weights.values())
            weights = {tap: w / total for tap, w in weights.items()}
        for tap, w in weights.items():
            matrix[i, min(max(tap, 0), axis.source - 1)] += w
    return matrix


def resample(x: Tensor, axes: dict[int, Axis], rule: Rule, outside: float) -> Tensor:
    """Resample the given axes one after the other."""
    bounded([axes[i].target if i in axes else size for i, size in enumerate(x.shape)])
    kind = x.dtype
    wild: list[tuple[int, Tensor]] = []
    for i, axis in axes.items():
        if axis.source == axis.target and axis.scale == 1 and axis.roi == (0.0, 1.0):
            continue
        bounded([axis.target, axis.source])
        matrix = _matrix(axis, rule)
        rows = np.isnan(matrix).any(1)
        if rows.any():
            wild.append((i, torch.from_numpy(rows).to(x.device)))
        clean = np.nan_to_num(matrix)
        if rule.mode == "nearest":
            x = x.index_select(i, torch.from_numpy(clean.argmax(1)).to(x.device))
            continue
        weights = torch.from_numpy(clean).to(x.device, x.dtype if x.is_floating_point() else None)
        x = (x.to(weights.dtype).movedim(i, -1) @ weights.t()).movedim(-1, i)
    for i, flags in wild:
        shaped = flags.reshape(-1, *[1] * (x.dim() - 1 - i))
        x = torch.where(shaped, torch.full_like(x, outside), x)
    return x if x.dtype == kind else _rounded(x, kind)


def _rounded(x: Tensor, kind: torch.dtype) -> Tensor:
    """Truncate the values of integer images, as the reference does."""
    limits = torch.iinfo(kind)
    return x.clamp(limits.min, limits.max).to(kind)


@operator("Resize", static=(1, 2, 3))
def resize(node: Node) -> Kernel:
    """Resize by nearest, linear or cubic interpolation, to a size or by a scale (opset 10 on)."""
    rule = Rule(
        node.get("mode", "nearest"),
        node.get(
            "coordinate_transformation_mode", "half_pixel" if node.opset > 10 else "asymmetric"
        ),
        node.get("nearest_mode", "round_prefer_floor" if node.opset > 10 else "floor"),
        node.get("cubic_coeff_a", -0.75),
        bool(node.get("exclude_outside", 0)),
        bool(node.get("antialias", 0)),
    )
    _known(node, rule)
    outside, policy = (
        node.get("extrapolation_value", 0.0),
        node.get("keep_aspect_ratio_policy", "stretch"),
    )
    given = node.get("axes")

    def run(
        x: Tensor,
        roi: Tensor | None = None,
        scales: Tensor | None = None,
        sizes: Tensor | None = None,
    ) -> Tensor:
        if node.opset == 10:
            roi, scales = None, roi
        chosen = [axis % x.dim() for axis in given] if given else list(range(x.dim()))
        region = python_numbers(roi) or [0.0] * len(chosen) + [1.0] * len(chosen)
        if rule.coordinate != "tf_crop_and_resize":
            region = [0.0] * len(chosen) + [1.0] * len(chosen)
        old = [x.shape[axis] for axis in chosen]
        new, factors = _targets(
            old, python_numbers(scales), python_numbers(sizes), policy, region, rule
        )
        axes = {
            axis: Axis(old[i], new[i], factors[i], (region[i], region[i + len(chosen)]))
            for i, axis in enumerate(chosen)
        }
        if any(_is_ambiguous(one, rule.coordinate) for one in axes.values()):
            raise node.refuse(f"{rule.coordinate} is not supported at this scale")
        return resample(x, axes, rule, outside)

    return run


def _is_ambiguous(axis: Axis, coordinate: str) -> bool:
    """Return whether the standard's reference and the runtime give different values."""
    cut = abs(axis.source * axis.scale - axis.target) > 1e-4
    if coordinate == "tf_crop_and_resize":
        return cut or (axis.source == axis.target and axis.roi != (0.0, 1.0))
    collapsed = coordinate == "pytorch_half_pixel" and axis.target == 1
    return cut and (coordinate == "align_corners" or collapsed)


def _known(node: Node, rule: Rule) -> None:
    if rule.mode not in ("nearest", "linear", "cubic"):
        raise node.refuse(f"mode '{rule.mode}' is not supported")
    if rule.coordinate not in COORDINATES:
        raise node.refuse(f"coordinate_transformation_mode '{rule.coordinate}' is not supported")
    if rule.nearest not in NEAREST:
        raise node.refuse(f"nearest_mode '{rule.nearest}' is not supported")


def _targets(
    old: Sequence[int],
    scales: Sequence[float],
    sizes: Sequence[int],
    policy: str,
    region: Sequence[float],
    rule: Rule,
) -> tuple[list[int], list[float]]:
    """Return the output sizes and their scales."""
    if sizes:
        factors = [new / size for new, size in zip(sizes, old, strict=True)]
        if policy != "stretch":
            factor = min(factors) if policy == "not_larger" else max(factors)
            return [math.floor(factor * size + 0.5) for size in old], [factor] * len(old)
        return list(sizes), factors
    spans = [1.0] * len(old)
    if rule.coordinate == "tf_crop_and_resize":
        spans = [region[i + len(old)] - region[i] for i in range(len(old))]
    new = [math.floor(size * s * span) for size, s, span in zip(old, scales, spans, strict=True)]
    return new, list(scales)


@operator("Upsample", static=(1,))
def upsample(node: Node) -> Kernel:
    """Resize as defined before opset 10."""
    mode, given = node.get("mode", "nearest"), node.get("scales")
    rule = Rule({"bilinear": "linear"}.get(mode, mode), "asymmetric", "floor", -0.75, False, False)
    _known(node, rule)

    def run(x: Tensor, scales: Tensor | None = None) -> Tensor:
        factors = given or python_numbers(scales)
        axes = {
            i: Axis(size, math.floor(size * s), s)
            for i, (size, s) in enumerate(zip(x.shape, factors, strict=True))
        }
        return resample(x, axes, rule, 0.0)

    return run
