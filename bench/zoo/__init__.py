"""A zoo of served files: every architecture, through both exporters, in the forms people serve.

    python -m bench.zoo FOLDER [--only TEXT] [--jobs N]

A file is `KIND-NETWORK-EXPORTER-OPSET-BATCH.onnx`. All weights are random (`transformers`
models are made from configurations), so nothing is downloaded; table models are trained here.
"""

import contextlib
import io
import logging
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.zoo.networks import NETWORKS, VARIANTS, Hidden, prepared
from bench.zoo.tabular import LINEAR, SCORES, write_tabular

NEWEST = 23  # the newest opset that torch's exporter writes
BATCH = 2
SCRIPT_OPSETS = ((11, True), (13, False), (17, True), (18, False))
DYNAMO_OPSETS = ((18, True), (20, False), (NEWEST, True))
FUSED_OPSET = 14  # the first in which scripts can hold torch's own attention
# Networks that are also served in half precision and in 8 bits.
HALF = ("mlp", "cnn", "resnet", "mobilenet_v3", "vit", "hf_convnext", "hf_swin")
QUANTISED = ("mlp", "cnn", "resnet", "mobilenet_v2", "vit")


@dataclass(frozen=True)
class Recipe:
    """One file of the zoo.

    Attributes:
        kind: "plain", a variant's name, "half", "qdq", "qdq_channel", "dynamic8", "scores" or
            "linear".
        exporter: "script", "dynamo" or "" for what is not exported by torch.
        dynamic: whether the batch is free.
    """

    kind: str
    network: str
    exporter: str = ""
    opset: int = 0
    dynamic: bool = True

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        if not self.exporter:
            return f"{self.kind}-{self.network}"
        batch = "dynamic" if self.dynamic else "fixed"
        return f"{self.kind}-{self.network}-{self.exporter}-{self.opset}-{batch}"


def recipes() -> Iterator[Recipe]:
    """Everything there is in the zoo."""
    for network in NETWORKS:
        for opset, dynamic in SCRIPT_OPSETS:
            opset = max(opset, FUSED_OPSET) if network == "vit" else opset
            yield Recipe("plain", network, "script", opset, dynamic)
        for opset, dynamic in DYNAMO_OPSETS:
            yield Recipe("plain", network, "dynamo", opset, dynamic)
    for variant, (_, network, _, _) in VARIANTS.items():
        yield Recipe(variant, network, "script", FUSED_OPSET if network == "vit" else 11, True)
        yield Recipe(variant, network, "script", 17, False)
        yield Recipe(variant, network, "dynamo", NEWEST, True)
    for network in HALF:
        yield Recipe("half", network, "script", 17, True)
        yield Recipe("half", network, "dynamo", NEWEST, True)
    for network in QUANTISED:
        for kind in ("qdq", "qdq_channel", "dynamic8"):
            yield Recipe(kind, network, "script", 17, True)
    for name in SCORES:
        yield Recipe("scores", name)
    yield Recipe("scores_zipmap", "forest")
    for name in LINEAR:
        yield Recipe("linear", name)
    yield Recipe("linear_zipmap", "logistic")


def subject(recipe: Recipe) -> tuple[nn.Module, Tensor]:
    """The module of a recipe and a batch of inputs, always the same ones."""
    torch.manual_seed(zlib.crc32(recipe.network.encode()))
    variant = VARIANTS.get(recipe.kind)
    make, shape = NETWORKS[recipe.network]
    module = make()
    if variant is not None:
        module, shape = variant[0](module), variant[2]
    module = prepared(module, shape)
    if recipe.exporter == "script" and recipe.opset < FUSED_OPSET and isinstance(module, Hidden):
        module.core.set_attn_implementation("eager")
    if recipe.kind == "half":
        module = module.half()
    x = torch.rand(BATCH, *shape)
    if variant is not None and variant[3]:
        x = (255 * x).round().to(torch.uint8)
    return module, x.half() if recipe.kind == "half" else x


def write(recipe: Recipe, folder: Path) -> Path:
    """Make one file."""
    file = folder / f"{recipe.name}.onnx"
    if recipe.kind.split("_")[0] in ("scores", "linear"):
        write_tabular(recipe.network, file, zipmap=recipe.kind.endswith("zipmap"))
        return file
    module, x = subject(recipe)
    with quiet():
        export(module, x, file, recipe)
        if recipe.kind in ("qdq", "qdq_channel", "dynamic8"):
            _quantise(file, x, recipe.kind)
    return file


def export(module: nn.Module, x: Tensor, file: Path, recipe: Recipe) -> None:
    """Through the exporter that the recipe names."""
    names = {"input_names": ["input"], "output_names": ["output"]}
    if recipe.exporter == "script":
        axes = {"input": {0: "batch"}, "output": {0: "batch"}} if recipe.dynamic else None
        torch.onnx.export(
            module, (x,), file, dynamo=False, opset_version=recipe.opset, dynamic_axes=axes, **names
        )
        return
    shapes = ({0: torch.export.Dim("batch")},) if recipe.dynamic else None
    torch.onnx.export(
        module, (x,), file, dynamo=True, opset_version=recipe.opset, dynamic_shapes=shapes,
        external_data=False, verbose=False, **names,
    )  # fmt: skip


def _quantise(file: Path, x: Tensor, kind: str) -> None:
    from onnxruntime import quantization as q

    if kind == "dynamic8":
        q.quantize_dynamic(file, file, weight_type=q.QuantType.QInt8)
        return

    class Samples(q.CalibrationDataReader):
        """Four batches to calibrate on."""

        def __init__(self) -> None:
            self.left = [torch.rand_like(x).numpy() for _ in range(4)]

        def get_next(self):
            """The next batch, None at the end."""
            return {"input": self.left.pop()} if self.left else None

    q.quantize_static(
        file, file, Samples(), quant_format=q.QuantFormat.QDQ, per_channel=kind == "qdq_channel",
        activation_type=q.QuantType.QUInt8, weight_type=q.QuantType.QInt8,
    )  # fmt: skip


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Exporters and quantisers talk a lot; what goes wrong is raised."""
    logging.disable(logging.ERROR)
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its layer has no ONNX counterpart
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        logging.disable(logging.NOTSET)


def attempt(recipe: Recipe, folder: Path) -> str:
    """Empty, or why this file cannot be made: an exporter's limit is not the importer's."""
    torch.set_num_threads(1)
    if (folder / f"{recipe.name}.onnx").exists():
        return ""
    try:
        write(recipe, folder)
    except Exception as error:  # exporters raise whatever their passes raise
        (folder / f"{recipe.name}.onnx").unlink(missing_ok=True)
        lines = str(error).strip().splitlines() or [""]
        return f"{type(error).__name__}: {lines[0][:160]}"
    return ""


def build(folder: Path, *, only: str = "", jobs: int = 1) -> dict[str, str]:
    """Make the files named like `only` that are not there; name -> why not, or empty."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [recipe for recipe in recipes() if only in recipe.name]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        failures = pool.map(attempt, wanted, [folder] * len(wanted), chunksize=4)
        return dict(zip([recipe.name for recipe in wanted], failures, strict=True))
