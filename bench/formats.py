"""Does the file people serve load, with the runtime's values and with the right gradients?

Every file of the zoo (or of `--zoo DIR`) is imported and compared with onnxruntime on random
inputs, values and gradients; then the importer's speed is compared with the native modules, and
onnx's own operator cases are counted.

    python -m bench.formats --jobs 2 --out bench/results/formats.md

The gradient of a random combination of the attackable scores is compared, along its own direction,
with differences through onnxruntime. No step suits every file, so slopes are taken over a ladder of
steps, and where three neighbours agree best is where neither rounding nor curvature matters; our
gradient takes no part in that choice. Where the runtime itself rounds (half precision, 8 bits) a
slope is a least-squares line through many points instead of a difference of two. Integer inputs
are differentiated in a copy of the file whose input is declared float.
"""

import os
import platform
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from audit.errors import AuditError
from audit.models import LoadOptions, load_classifier
from audit.models.onnx import OnnxModule, lift, read_model
from audit.models.onnx.heads import find_head
from bench import zoo
from bench.table import Table, bench_parser, publish

# By nature without a torch counterpart: these are audited through their scores.
SCORES_ALONE = {"TreeEnsembleClassifier", "TreeEnsemble", "SVMClassifier", "Scan", "Loop"}
QUANTISED = {"QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv"}


@dataclass(frozen=True)
class Precision:
    """What agreement means for a file's arithmetic.

    Attributes:
        values: largest difference of the scores, relative to the largest score.
        gradient: largest relative difference of the slope along the gradient.
        points: how many points a slope is taken from.
        steps: lengths along the unit gradient, from large to small.
    """

    name: str
    values: float
    gradient: float
    points: int
    steps: tuple[float, ...]


SINGLE = Precision("float32", 1e-4, 1e-2, 2, tuple(0.2 * 0.5**k for k in range(15)))
HALF = Precision("float16", 1e-2, 5e-2, 41, tuple(12.8 * 0.5**k for k in range(8)))
EIGHT = Precision("8 bits", 1e-4, 2.5e-1, 41, tuple(12.8 * 0.5**k for k in range(8)))


@dataclass(frozen=True)
class Result:
    """What came of one file.

    Attributes:
        path: "lifted", "scores" (audited black-box, as it has to be), "unserved" (the runtime
            cannot run the file either) or "failed".
        value: largest difference of the scores, relative, for 8-bit files from the runtime without
            its fused kernels; None where not compared.
        gradient: relative difference of the slope; None where there is none to compare.
    """

    name: str
    precision: str
    path: str
    value: float | None = None
    gradient: float | None = None
    note: str = ""

    @property
    def good(self) -> bool:
        """Whether it loads and agrees."""
        limits = {kind.name: kind for kind in (SINGLE, HALF, EIGHT)}[self.precision]
        if self.path != "lifted":
            return self.path in ("scores", "unserved")
        return (self.value or 0.0) < limits.values and (self.gradient or 0.0) < limits.gradient


def precision_of(model: onnx.ModelProto) -> Precision:
    if any(node.op_type in QUANTISED for node in model.graph.node):
        return EIGHT
    kinds = {proto.data_type for proto in model.graph.initializer}
    return HALF if onnx.TensorProto.FLOAT16 in kinds else SINGLE


def session(model: onnx.ModelProto, *, optimised: bool = True) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    if not optimised:
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def with_float_input(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same file for inputs between two integers: its casts to float become copies."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    del copy.graph.value_info[:]
    (source,) = _inputs(copy)
    source.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return copy


def with_scores(model: onnx.ModelProto, module: OnnxModule) -> tuple[onnx.ModelProto, str, bool]:
    """The file with its attackable scores as an output, where they are a value in the graph.

    Returns:
        the model, the name of the output, and whether these are `module.logits`.
    """
    head = find_head(model.graph, module.output_name)
    target = head.aliases.get(head.target, head.target)
    if head.patches or (head.aliases and head.target not in head.aliases):
        return model, module.output_name, False
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    if target not in {output.name for output in copy.graph.output}:
        copy.graph.output.append(onnx.ValueInfoProto(name=target))
    return copy, target, True


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    stored = {proto.name for proto in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in stored]


def example(module: OnnxModule, seed: int, rows: int = 2) -> Tensor:
    """Random inputs of the declared shape, in [0, 1] or in bytes."""
    generator = torch.Generator().manual_seed(seed)
    shape = [rows if size is None else size for size in module.input_shape[:1]]
    shape += [size or 8 for size in module.input_shape[1:]]
    x = torch.rand(shape, generator=generator)
    if module.input_dtype.is_floating_point:
        return x.to(module.input_dtype)
    return (255 * x).round().to(module.input_dtype)


def as_array(scores: np.ndarray | list[dict[object, float]]) -> np.ndarray:
    """Scores as a matrix; ZipMap's are a list of dictionaries."""
    if isinstance(scores, list):
        return np.array([list(row.values()) for row in scores])
    return scores


def value_difference(module: OnnxModule, runtime: onnxruntime.InferenceSession) -> float:
    """Largest difference of the served output, relative to its largest value."""
    worst = 0.0
    for seed in range(4):
        x = example(module, seed)
        with torch.no_grad():
            ours = module(x).double()
        served = runtime.run([module.output_name], {module.input_name: x.numpy()})[0]
        theirs = torch.from_numpy(as_array(served)).double()
        if ours.shape != theirs.shape:
            return float("inf")
        scale = max(float(theirs.abs().max()), 1e-12)
        worst = max(worst, float((ours - theirs).abs().max()) / scale)
    return worst


def slope(value: Callable[[float], float], precision: Precision) -> float:
    """The derivative at 0 where three neighbouring steps agree best."""
    found = []
    for step in precision.steps:
        at = np.linspace(-step, step, precision.points)
        values = np.array([value(float(t)) for t in at])
        found.append(float((at * values).sum() / (at * at).sum()))
    changes = [abs(b - a) / max(abs(b), 1e-30) for a, b in pairwise(found)]
    spreads = [max(pair) for pair in pairwise(changes)]
    return found[int(np.argmin(spreads)) + 1]


def gradient_difference(
    model: onnx.ModelProto, module: OnnxModule, precision: Precision
) -> tuple[float, str]:
    """Relative difference of the slope along our gradient, and a remark."""
    served, name, is_logits = with_scores(model, module)
    whole = not module.input_dtype.is_floating_point
    # Fused 8-bit kernels saturate on some processors: the file's own arithmetic is the measure.
    fused = precision is not EIGHT
    runtime = session(with_float_input(served) if whole else served, optimised=fused)
    x = example(module, 9)
    x = x.float() if whole else x
    run = module.logits if is_logits else module.forward
    leaf = x.clone().requires_grad_()
    scores = run(leaf)
    generator = torch.Generator().manual_seed(3)
    mixed = torch.randn(scores.shape, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((mixed * scores).sum(), leaf)
    length = float(gradient.double().norm())
    along = gradient.double() / length if length else torch.ones_like(gradient).double()
    scale = 255.0 if whole else 1.0

    def value(t: float) -> float:
        moved = (x.double() + t * scale * along).to(x.dtype)
        scores = as_array(runtime.run([name], {module.input_name: moved.numpy()})[0])
        return float((mixed.numpy() * scores.astype(np.float64)).sum())

    expected = slope(value, precision) / scale
    if length == 0.0:
        return abs(expected), "zero gradient"
    return abs(length - expected) / max(abs(expected), 1e-30), ""


def _remark(module: OnnxModule) -> str:
    before = {"probabilities": "softmax or sigmoid", "log_probabilities": "log-softmax"}
    before["labels"] = "argmax"
    parts = [f"taken before the {before[module.head]}"] if module.head in before else []
    if not module.input_dtype.is_floating_point:
        parts.append("integer input")
    return ", ".join(parts)


def measure(file: Path) -> Result:
    """Load one file and compare it; what goes wrong is in the note."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    name = file.stem
    try:
        model = read_model(file)
        precision = precision_of(model)
    except AuditError as error:
        return Result(name, SINGLE.name, "failed", note=str(error))
    found = {node.op_type for node in model.graph.node} & SCORES_ALONE
    if found:
        return scores_alone(file, found)
    try:
        module = lift(model).eval().requires_grad_(False)
        fused = value_difference(module, session(model))
        value = fused
        if precision is EIGHT:
            value = value_difference(module, session(model, optimised=False))
        if not module.differentiable:
            return Result(name, precision.name, "failed", value, note="no gradient")
        gradient, note = gradient_difference(model, module, precision)
    except AuditError as error:
        return Result(name, precision.name, "failed", note=str(error))
    remarks = [note, _remark(module)]
    if precision is EIGHT and fused >= precision.values:
        remarks.append(f"{fused:.1e} from onnxruntime with its fused 8-bit kernels on this machine")
    note = ", ".join(filter(None, remarks))
    return Result(name, precision.name, "lifted", value, gradient, note)


def scores_alone(file: Path, found: set[str]) -> Result:
    """A file without gradients has to load for black-box attacks."""
    sample = torch.rand(4, 8)
    try:
        classifier = load_classifier(file, sample, LoadOptions())
        scores = classifier.deployed(sample)
    except AuditError as error:
        return Result(file.stem, SINGLE.name, "failed", note=str(error))
    good = classifier.gradient == "none" and bool(scores.isfinite().all())
    note = f"{', '.join(sorted(found))}: {scores.shape[1]} scores"
    return Result(file.stem, SINGLE.name, "scores" if good else "failed", note=note)


def seconds(run: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """Forward and gradient with respect to the input, once."""
    leaf = x.clone().requires_grad_()
    started = time.perf_counter()
    torch.autograd.grad(run(leaf).square().sum(), leaf)
    return time.perf_counter() - started


TIMED = ("cnn", "resnet", "mobilenet_v3", "vit", "hf_vit", "hf_convnext", "hf_swin", "lstm_bi2")


def time_ratio(network: str, exporter: str, opset: int, rows: int = 32) -> float:
    """How much longer the imported module takes than the native one; medians, interleaved."""
    recipe = zoo.Recipe("plain", network, exporter, opset, True)
    native, _ = zoo.subject(recipe)
    x = torch.rand(rows, *zoo.NETWORKS[network][1])
    with tempfile.TemporaryDirectory() as folder:
        ours = lift(read_model(zoo.write(recipe, Path(folder)))).eval().requires_grad_(False)
    for run in (native, ours.logits) * 3:
        seconds(run, x)
    pairs = [(seconds(native, x), seconds(ours.logits, x)) for _ in range(25)]
    return float(np.median([b for _, b in pairs]) / np.median([a for a, _ in pairs]))


def unfolded(network: str, rows: int = 32) -> float:
    """The same, for a file that keeps its batch norms: exported without constant folding."""
    native, _ = zoo.subject(zoo.Recipe("plain", network))
    x = torch.rand(rows, *zoo.NETWORKS[network][1])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kept.onnx"
        keep_batch_norms(native, x, file)
        ours = lift(read_model(file)).eval().requires_grad_(False)
    for run in (native, ours.logits) * 3:
        seconds(run, x)
    pairs = [(seconds(native, x), seconds(ours.logits, x)) for _ in range(25)]
    return float(np.median([b for _, b in pairs]) / np.median([a for a, _ in pairs]))


def keep_batch_norms(module: nn.Module, x: Tensor, file: Path) -> None:
    with zoo.quiet():
        torch.onnx.export(
            module, (x,), file, dynamo=False, opset_version=17, do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE, input_names=["input"],
        )  # fmt: skip


# The operators a classifier may hold. Left out are those of other trades: strings, sequences and
# optionals, audio, detection, losses and optimisers, random numbers, image decoding, bit patterns.
ELSEWHERE = frozenset(
    """
    Adagrad Adam Bernoulli BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor
    BlackmanWindow CausalConvWithState CenterCropPad Col2Im DFT DeformConv Det FlexAttention
    HammingWindow HannWindow ImageDecoder LabelEncoder LinearAttention Loop MaxUnpool
    MelWeightMatrix Momentum NegativeLogLikelihoodLoss NonMaxSuppression OptionalGetElement
    OptionalHasElement RegexFullMatch RoiAlign STFT Scan SequenceInsert SequenceMap
    SoftmaxCrossEntropyLoss SplitToSequence StringConcat StringNormalizer StringSplit TensorScatter
    TfIdfVectorizer TreeEnsemble Unique
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Cases:
    """onnx's own cases of the operators of classifiers.

    Attributes:
        unserved: cases that onnxruntime cannot run either; not counted.
        refused: name -> why.
    """

    operators: int
    correct: int
    unserved: int
    refused: dict[str, str]
    wrong: dict[str, str]

    @property
    def total(self) -> int:
        """Cases that are counted."""
        return self.correct + len(self.refused) + len(self.wrong)


def operator_cases() -> Cases:
    from tests.models.onnx.test_backend_suite import cases, operator_of, outcome

    warnings.simplefilter("ignore")
    groups: Counter[str] = Counter()
    found: dict[str, dict[str, str]] = {"correct": {}, "refused": {}, "wrong": {}}
    unserved = 0
    for name, case in cases().items():
        operator = operator_of(case)
        if operator is None or operator[1] in ELSEWHERE or "_expanded" in name:
            continue
        try:
            session(case.model)
        except Exception:  # the runtime has many, all of its own
            unserved += 1
            continue
        groups[operator[1]] += 1
        kind, _, why = outcome(case).partition(": ")
        found[kind][name] = why
    correct = len(found["correct"])
    return Cases(len(groups), correct, unserved, found["refused"], found["wrong"])


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


def summary(results: Sequence[Result]) -> Table:
    """Return a row per kind of file."""
    kinds: dict[str, list[Result]] = {}
    for result in results:
        kinds.setdefault(result.name.split("-")[0], []).append(result)
    rows = []
    for kind, members in kinds.items():
        values = [result.value for result in members if result.value is not None]
        gradients = [result.gradient for result in members if result.gradient is not None]
        rows.append(
            [
                kind,
                members[0].precision,
                f"{sum(result.good for result in members)}/{len(members)}",
                number(max(values, default=None)),
                number(float(np.median(gradients)) if gradients else None),
                number(max(gradients, default=None)),
            ]
        )
    columns = ("kind", "arithmetic", "good", "worst value", "median gradient", "worst gradient")
    return Table(columns).extend(rows)


def report(results: Sequence[Result], failures: dict[str, str]) -> list[str | Table]:
    convertible = [result for result in results if result.path in ("lifted", "failed")]
    good = sum(result.good for result in convertible)
    score_only = sum(result.path == "scores" for result in results)
    unserved = len(results) - len(convertible) - score_only
    blocks: list[str | Table] = [
        f"{good} of {len(convertible)} convertible files load, agree with onnxruntime and have "
        f"its gradients ({100 * good / max(len(convertible), 1):.1f} %); {score_only} more are "
        f"audited through their scores; the runtime cannot serve {unserved}.",
        summary(results),
    ]
    bad = [result for result in results if not result.good]
    if bad:
        columns = ("file", "path", "value", "gradient", "note")
        blocks.append(Table(columns, "Not good:").extend(map(cells, bad)))
    unmade = {name: why for name, why in failures.items() if why}
    if unmade:
        blocks.append("Recipes that the exporter refuses (no file, not counted):")
        blocks.append("\n".join(f"- `{name}`: {why}" for name, why in unmade.items()))
    return blocks


def cells(result: Result) -> list[str]:
    """Return the row of a file."""
    values = (number(result.value), number(result.gradient))
    return [result.name, result.path, *values, result.note]


def details(results: Sequence[Result]) -> Table:
    columns = ("file", "gradient path", "value difference", "gradient difference", "note")
    return Table(columns).extend(map(cells, results))


def speed() -> Table:
    table = Table(("network", "script exporter, opset 17", "dynamo exporter, opset 20", "BN kept"))
    for network in TIMED:
        kept = network in ("cnn", "resnet", "mobilenet_v3")
        table.add(
            network,
            f"{time_ratio(network, 'script', 17):.2f}",
            f"{time_ratio(network, 'dynamo', 20):.2f}",
            f"{unfolded(network):.2f}" if kept else "",
        )
    return table


def reason(name: str, why: str) -> str:
    """The kind of refusal."""
    if "training" in name:
        return "training mode, which has to be refused"
    if any(word in name for word in ("string", "seq", "opt")):
        return "strings, sequences, optionals: no tensors"
    if any(kind in name for kind in ("INT4", "INT2")):
        return "2- and 4-bit integers, which torch does not have"
    return why.split("; ")[0].split(": ", 1)[-1]


def suite() -> list[str]:
    found = operator_cases()
    reasons = Counter(reason(name, why) for name, why in found.refused.items())
    items = [f"- wrong: `{name}`, {why}" for name, why in found.wrong.items()]
    items += [f"- refused: {count}, {why}" for why, count in reasons.most_common()]
    return [
        f"{found.correct} of {found.total} cases of {found.operators} operators correct "
        f"({100 * found.correct / found.total:.1f} %), {len(found.wrong)} wrong, "
        f"{len(found.refused)} refused; {found.unserved} more are not counted because onnxruntime "
        "cannot load them either.",
        "\n".join(items),
        "Refused cases: " + ", ".join(f"`{name}`" for name in found.refused) + ".",
    ]


def machine() -> str:
    versions = f"torch {torch.__version__}, onnx {onnx.__version__}"
    versions += f", onnxruntime {onnxruntime.__version__}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores, one thread per process; {versions}."


def alone(run: Callable[[Path], object], file: Path) -> object:
    """The result of a process of its own, None where that dies."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(run, file).result()
        except BrokenProcessPool:
            return None


def opens(file: Path) -> bool:
    """Whether the runtime can load a file."""
    session(onnx.load(file))
    return True


def after_crash(file: Path) -> Result:
    """A file during which a process died: its own fault, the runtime's, or a neighbour's."""
    result = alone(measure, file)
    if isinstance(result, Result):
        return result
    if alone(opens, file) is None:
        return Result(file.stem, SINGLE.name, "unserved", note="onnxruntime itself crashes on it")
    return Result(file.stem, SINGLE.name, "failed", note="the process dies")


def measured(folder: Path, jobs: int) -> list[Result]:
    """All files of a folder; a runtime that crashes takes only its own file along."""
    files = sorted(folder.glob("*.onnx"))
    results: list[Result] = []
    while len(results) < len(files):
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            try:
                for result in pool.map(measure, files[len(results) :]):
                    results.append(result)
            except BrokenProcessPool:
                results.append(after_crash(files[len(results)]))
    for result in results:
        if not result.good:
            print(result, file=sys.stderr)
    return results


def main() -> None:
    """Print all parts, and write them if a file is named."""
    parser = bench_parser(__doc__, shared=False)
    parser.add_argument("--zoo", type=Path, help="folder of .onnx files instead of the zoo")
    parser.add_argument("--only", default="", help="files of the zoo whose name contains this")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--skip", default="", help="parts to leave out: files,speed,suite")
    parser.add_argument("--fuzz", type=Path, help="Markdown of bench.fuzz_onnx to include")
    options = parser.parse_args()
    skipped = set(options.skip.split(","))
    torch.set_num_threads(1)

    blocks: list[str | Table] = ["# Served formats", machine()]
    if "speed" not in skipped:
        title = "## Forward and input gradient, imported relative to native, 32 images"
        blocks += [title, speed()]
    if "suite" not in skipped:
        blocks += ["## onnx's own operator cases", *suite()]
    if options.fuzz:
        blocks += ["## Mutated files", options.fuzz.read_text(encoding="utf-8")]
    if "files" not in skipped:
        with tempfile.TemporaryDirectory() as scratch:
            folder = options.zoo or Path(scratch)
            failures = {}
            if options.zoo is None:
                failures = zoo.build(folder, only=options.only, jobs=options.jobs)
            results = measured(folder, options.jobs)
        blocks += ["## Files", *report(results, failures)]
        blocks += ["## Every file", details(results)]
    publish(options.out, *blocks)


if __name__ == "__main__":
    main()
