"""A report with every kind of entry, plausible numbers, and strings that attempt injection."""

import base64
import math
import struct
import zlib

from audit.schema import (
    Artifacts,
    AsGenerated,
    Attack,
    Certifier,
    ClassPoint,
    ClassResult,
    Clean,
    Curve,
    Data,
    FirstOrder,
    GalleryItem,
    Gate,
    GeneratorUsed,
    Health,
    Histogram,
    Interval,
    Model,
    ModelInput,
    Parity,
    Point,
    Quantiles,
    Radii,
    Robustness,
    ScanReport,
    Sensitivity,
    SensitivityPoint,
    SoftCurve,
    SoftPoint,
    Spread,
    ThreatResult,
    Tool,
    ValuePoint,
)

CLEAN = 0.989
HOSTILE = "<script>document.title='owned';window.owned=1</script>"
HOSTILE_IMAGE = "<img src=x onerror=\"document.title='owned'\">"
HOSTILE_END = "]]>--></script></style></title>\u2028\u2029 {{ 7*7 }} '\"&amp; \x1b[31m"
COMMAND = (
    "audit scan models/lenet.onnx --data data/t10k-images-idx3-ubyte.gz --threat linf,l2 "
    "--order inf,2,1 --samples 1000 --seed 0"
)


def png(index: int, *, channels: int = 1, shift: int = 0) -> str:
    """Return a 28 x 28 picture of a ring as a data URI."""
    rows = bytearray()
    for i in range(28):
        rows.append(0)
        for j in range(28):
            ring = math.hypot(i - 13.5, (j - 13.5) * (1 + index / 5)) - 8
            noise = (i * 7 + j * 13 + index * 5) % 11 - 5
            value = round(255 * math.exp(-ring * ring / 6)) + shift * noise
            rows += bytes([min(max(value, 0), 255)] * channels)

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    header = struct.pack(">IIBBBBB", 28, 28, 8, 0 if channels == 1 else 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    data += chunk(b"IDAT", zlib.compress(bytes(rows))) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(data).decode()


def interval(value: float, half: float) -> Interval:
    return Interval(value=value, low=max(value - half, 0.0), high=min(value + 0.9 * half, 1.0))


def curve(order: str, deltas: list[float], scale: float) -> Curve:
    """Return accuracies that fall with the budget, faster for a finite order."""
    extra, power = {"inf": (0.0, 1.0), "2": (0.35, 1.1), "1": (0.6, 0.8)}[order]

    def accuracy(x: float) -> float:
        return CLEAN * math.exp(-(x**2.2) - extra * x**power)

    points = []
    for i, delta in enumerate(deltas):
        attacked = accuracy(delta / scale)
        certified = accuracy(2.7 * delta / scale)
        kept_attacked, kept_certified = attacked / CLEAN, certified / CLEAN
        slope = 1 - 0.6 * delta / scale
        points.append(
            Point(
                delta=delta,
                attacked=interval(attacked, 0.0213 + i / 997),
                certified=interval(certified, 0.0187 + i / 883),
                robustness=Robustness(
                    attacked=interval(kept_attacked, 0.0257 + i / 991),
                    certified=interval(kept_certified, 0.0231 + i / 877),
                ),
                first_order=None
                if order == "inf"
                else FirstOrder(
                    loss="redlr",
                    upper=min(kept_attacked + 0.0173, 1.0),
                    lower_value=slope + 0.031,
                    lower_slope=slope,
                    violated=slope > kept_attacked,
                ),
            )
        )
    return Curve(order=order, points=points)


def sensitivity(order: str, loss: str, deltas: list[float], size: float) -> Sensitivity:
    return Sensitivity(
        order=order,
        loss=loss,
        upsilon=Interval(value=size, low=0.91234 * size, high=1.08765 * size),
        value_at_zero=Interval(value=-0.0345 * size, low=-0.0399 * size, high=-0.0301 * size),
        points=[
            SensitivityPoint(
                loss=loss,
                delta=delta,
                upper=None if loss == "ce" else 0.9 - delta * size / 40,
                lower_value=0.95 - delta * size / 9,
                lower_slope=0.93 - delta * size / 7,
                violated=None if loss == "ce" else delta * size > 1,
            )
            for delta in deltas
        ],
        value=[
            ValuePoint(
                delta=delta,
                attained=-0.03123 * size + 0.41 * delta * size,
                first_order=-0.0345 * size + delta * size,
                bounded=None if loss == "redlr" and order == "1" else 0.017 + 3 * delta * size,
                outside="below" if order == "1" else None,
            )
            for delta in deltas
        ],
    )


def threat(metric: str, deltas: list[float], scale: float) -> ThreatResult:
    unit = {"linf": "input range [0, 1]", "l2": "Euclidean, inputs in [0, 1]"}[metric]
    return ThreatResult(
        metric=metric,
        unit=unit,
        attacks=[
            Attack(
                name="fgsm",
                status="ran",
                detail="",
                broken=213,
                forwards=1_989,
                gradients=989,
                seconds=0.412345,
            ),
            Attack(
                name="pgd",
                status="ran",
                detail="40 steps, minimal radius by bisection",
                broken=714,
                forwards=412_113,
                gradients=398_771,
                seconds=18.7654,
            ),
            Attack(
                name="square",
                status="not_applicable",
                detail="scores are not needed: gradients agree with finite differences",
                broken=None,
                forwards=None,
                gradients=None,
                seconds=None,
            ),
            Attack(
                name=f"mine{HOSTILE_IMAGE}",
                status="error",
                detail=f"ValueError: {HOSTILE}",
                broken=0,
                forwards=64,
                gradients=0,
                seconds=0.0321,
            ),
        ],
        certifier=Certifier(
            name="crown",
            status="ran",
            detail="linear bounds, intermediate layers by intervals",
            seconds=7.12345,
            failure_probability=0.0 if metric == "linf" else 0.00012345,
        ),
        sensitivity=[
            sensitivity("2", "redlr", deltas, 6.54321 / scale / 10),
            sensitivity("2", "ce", deltas, 9.87654 / scale / 10),
            sensitivity("1", "redlr", deltas, 12.3456 / scale / 10),
        ],
        curves=[curve(order, deltas, scale) for order in ("inf", "2", "1")],
        soft=[
            SoftCurve(
                order=order,
                points=[
                    SoftPoint(
                        delta=delta,
                        certified=Interval(
                            value=0.91234 - delta / scale / 100 - place / 77,
                            low=0.85432 - delta / scale / 100 - place / 77,
                            high=None,
                        ),
                    )
                    for delta in deltas
                ],
            )
            for place, order in enumerate(("inf", "2"))
        ],
        classes=[
            ClassResult(
                label=label,
                name=name,
                samples=100 + label,
                clean=interval(0.95 - label / 331, 0.0613),
                points=[
                    ClassPoint(
                        delta=delta,
                        attacked=interval(0.8123 - place / 13 - label / 317, 0.0713),
                        certified=interval(0.3123 - place / 29 - label / 311, 0.0691),
                    )
                    for place, delta in enumerate(deltas)
                ],
            )
            for label, name in ((0, "cat"), (7, HOSTILE_IMAGE))
        ],
        radii=Radii(
            attacked=Quantiles(
                quantiles={
                    "0.05": 0.0,
                    "0.25": 0.412341 * scale,
                    "0.5": 0.712343 * scale,
                    "0.75": 1.123457 * scale,
                    "0.95": None,
                }
            ),
            certified=Quantiles(
                quantiles={
                    "0.05": 0.0,
                    "0.25": 0.112349 * scale,
                    "0.5": 0.212347 * scale,
                    "0.75": 0.312341 * scale,
                    "0.95": 0.512349 * scale,
                }
            ),
            histogram=Histogram(
                edges=[round(k * 0.25 * scale, 6) for k in range(6)],
                attacked=[211, 307, 1_109, 83, 41],
                certified=[613, 223, 103, 47, 3],
                attacked_beyond=137,
                certified_beyond=29,
            ),
        ),
    )


def gallery(metric: str, scale: float) -> list[GalleryItem]:
    return [
        GalleryItem(
            metric=metric,
            index=1_203 + 17 * i,
            label=i,
            prediction=(i + 3) % 10,
            distance=(0.31234567 + i / 7) * scale,
            attack="pgd" if i % 2 else "fgsm",
            original=png(i, channels=1 if metric == "linf" else 3),
            adversarial=png(i, channels=1 if metric == "linf" else 3, shift=6),
            difference=png(i, shift=25),
            confidences=(0.98123 - i / 91, 0.50123 + i / 97) if i else None,
        )
        for i in range(4)
    ]


def golden() -> ScanReport:
    """Return the report on which every renderer is tested."""
    linf = [k / 255 for k in (2, 4, 8, 12, 16, 24, 32)]
    l2 = [0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0]
    return ScanReport(
        tool=Tool(name="wasserstein-audit", version="0.1.0"),
        status="partial",
        verdict="fail",
        created="2025-03-01T12:00:00+00:00",
        model=Model(
            path=f"models/lenet {HOSTILE_IMAGE}.onnx",
            sha256="3f" * 32,
            format="onnx",
            classes=10,
            input=ModelInput(
                shape=[None, 1, 28, 28],
                dtype="float32",
                layout="chw",
                low=0.0,
                high=1.0,
                mean=[0.1307],
                std=[0.3081],
            ),
            output="logits",
            gradient="lifted",
            parity=Parity(max_abs_difference=3.8147e-06, samples=64),
        ),
        data=Data(
            path="data/t10k-images-idx3-ubyte.gz",
            sha256="a7" * 32,
            available=10_000,
            evaluated=1_000,
            correct=989,
        ),
        config={
            "command": COMMAND,
            "threat": ["linf", "l2"],
            "order": ["inf", "2", "1"],
            "samples": 1000,
            "confidence": 0.95,
            "seed": 0,
            "trust_model": False,
            "policy": None,
            "limit_gib": 1.0,
            "step_size": 1.875,
            f"note {HOSTILE}": HOSTILE_END,
            "nested": {"steps": 40, "restarts": [1, 2]},
        },
        environment={
            "python": "3.11.2",
            "torch": "2.10.0",
            "device": "cpu",
            "seed": 0,
            "platform": HOSTILE_IMAGE,
        },
        clean=Clean(value=CLEAN, low=0.98034, high=0.99450, confidence=0.95),
        threats=[threat("linf", linf, 0.07), threat("l2", l2, 1.6)],
        health=[
            Health(
                id="clean_accuracy",
                metric=None,
                status="pass",
                title="Accuracy is above chance",
                finding="98.9 % is far from chance.",
                numbers={"chance": 0.10123, "classified": 987},
                advice=None,
            ),
            Health(
                id="deterministic",
                metric=None,
                status="pass",
                title="Scores are deterministic",
                finding="Five passes agree bit for bit.",
                numbers={},
                advice=None,
            ),
            Health(
                id="finite_differences",
                metric=None,
                status="warn",
                title="Gradients match finite differences",
                finding="Gradients differ from finite differences on many samples.",
                numbers={"disagreeing": 3, "probed": 64, "relative_error": 0.34567},
                advice="Add a score-only attack.",
            ),
            Health(
                id="unbounded_attack",
                metric="linf",
                status="fail",
                title="Unlimited budget breaks every sample",
                finding=f"An unbounded attack leaves 12 % accuracy. {HOSTILE}",
                numbers={"unbroken": 1_234},
                advice=f"Look at the gradients. {HOSTILE}",
            ),
            Health(
                id="square",
                metric="l2",
                status="error",
                title="Search without gradients finds no more",
                finding="The check stopped on an error (Boom), so its outcome is not known.",
                numbers={},
                advice="Repeat the scan with --verbose.",
            ),
            Health(
                id="parity",
                metric=None,
                status="pass",
                title="Copy agrees with the served model",
                finding="The two runtimes agree.",
                numbers={"max_abs_difference": 3.9e-06},
                advice=None,
            ),
            Health(
                id="output_range",
                metric=None,
                status="not_applicable",
                title="Outputs are in range",
                finding="Outputs are logits.",
                numbers={},
                advice=None,
            ),
        ],
        gates=[
            Gate(id="clean", expression="clean >= 0.97", status="pass", value=0.98034),
            Gate(
                id="linf",
                expression=f"attacked.linf@8/255 >= 0.80 {HOSTILE}",
                status="fail",
                value=0.71234,
            ),
            Gate(id="l1", expression="attacked.l1@2 >= 0.5", status="inconclusive", value=None),
            Gate(
                id="certified.l2@0.5",
                expression="certified.l2@0.5 >= 0.9",
                status="waived",
                value=0.61234,
                detail=f"Waived until 2030-01-31: {HOSTILE}.",
            ),
        ],
        warnings=["Only 1,000 of 10,000 samples were evaluated.", f"Odd name: {HOSTILE_END}"],
        artifacts=Artifacts(
            samples="samples.csv",
            adversarial="adversarial.npz",
            html="report.html",
            gallery=gallery("linf", 0.07) + gallery("l2", 1.6),
        ),
        generator=GeneratorUsed(
            path=f"generators/{HOSTILE_IMAGE}.safetensors",
            sha256="5c" * 32,
            head="image",
            variant="wagan-beta-minus",
            radius=0.27,
            transfer=True,
            as_generated=AsGenerated(
                samples=1_000,
                accuracy=Interval(value=0.01234, low=0.00634, high=0.02145),
                planned=200,
                wasserstein=Spread(smallest=0.41237, mean=7.71234, largest=11.23457),
                l2=Spread(smallest=3.12341, mean=9.43218, largest=12.34563),
                linf=Spread(smallest=0.298763, mean=0.300012, largest=0.300123),
                mass_ratio=Spread(smallest=0.912345, mean=1.243215, largest=None),
            ),
        ),
    )
