"""Files next to the report: `samples.csv`, `adversarial.npz`, and the pictures of the gallery."""

import base64
import csv
import io
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from attackers.geometry import Metric, Wasserstein
from audit.models.classifier import Classifier
from audit.scanning import mass_flow
from audit.scanning.evidence import MetricEvidence
from audit.scanning.result import ScanResult
from audit.schema import GalleryItem

GALLERY = 12
"""Number of pictures per metric."""


def samples_csv(result: ScanResult) -> str:
    """Return a CSV table: per sample, the prediction, and per metric both radii and the attack."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = [run.metric.name for run in result.evidence]
    columns = [f"{name}_{kind}" for name in names for kind in ("attacked", "certified", "attack")]
    writer.writerow(["index", "label", "prediction", "correct", *columns])
    samples = result.samples
    for row in range(len(samples)):
        cells: list[object] = []
        for run in result.evidence:
            radius = float(run.frontier.radius[row])
            cells.append(repr(radius) if radius < float("inf") else "")
            cells.append(repr(float(run.certified.radius[row])))
            cells.append(run.frontier.attack[row])
        writer.writerow(
            [
                int(samples.index[row]),
                int(samples.labels[row]),
                int(samples.prediction[row]),
                str(bool(samples.correct[row])).lower(),
                *cells,
            ]
        )
    return buffer.getvalue()


def adversarial_arrays(
    result: ScanResult,
) -> dict[str, "np.ndarray[tuple[int, ...], np.dtype[np.generic]]"]:
    """Return, per metric, the data rows of broken samples, their examples and the predictions."""
    arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = {}
    for run in result.evidence:
        rows = run.frontier.broken.nonzero()[:, 0]
        name = run.metric.name
        arrays[f"{name}_index"] = result.samples.index[rows].numpy()
        arrays[f"{name}_x"] = run.frontier.x[rows].numpy()
        arrays[f"{name}_prediction"] = run.frontier.prediction[rows].numpy()
    return arrays


def gallery(result: ScanResult) -> list[GalleryItem]:
    """Return pictures of broken samples at evenly spaced ranks of the radius; images only."""
    shape = tuple(result.samples.x.shape[1:])
    if len(shape) != 3 or shape[0] not in (1, 3):
        return []
    return [item for run in result.evidence for item in _gallery(result, run)]


def _gallery(result: ScanResult, run: MetricEvidence) -> Iterator[GalleryItem]:
    rows = run.frontier.broken.nonzero()[:, 0]
    if not len(rows):
        return
    ordered = rows[run.frontier.radius[rows].argsort(stable=True)]
    places = torch.linspace(0, len(ordered) - 1, min(GALLERY, len(ordered))).round().long()
    low, high = result.subject.config.low, result.subject.config.high
    for row in ordered[places].tolist():
        x0, x = result.samples.x[row], run.frontier.x[row]
        original, adversarial = (x0 - low) / (high - low), (x - low) / (high - low)
        flow, note = _mass_flow(run.metric, x0, x, original)
        moved = adversarial - original
        # Grey means no change. Changes are amplified to the full range, or they would be invisible.
        difference = 0.5 + 0.5 * moved / moved.abs().max().clamp_min(1e-12)
        yield GalleryItem(
            metric=run.metric.name,
            index=int(result.samples.index[row]),
            label=int(result.samples.labels[row]),
            prediction=int(run.frontier.prediction[row]),
            distance=float(run.frontier.radius[row]),
            attack=run.frontier.attack[row],
            original=_png(original),
            adversarial=_png(adversarial),
            difference=_png(difference),
            flow=flow,
            note=note,
            confidences=_confidences(result.classifier, torch.stack([x0, x])),
        )


def _confidences(classifier: Classifier, pair: Tensor) -> tuple[float, float] | None:
    """Return the probability of the predicted class on an original and on its example."""
    if classifier.output == "labels" or classifier.base is not None:
        return None
    scores = classifier.deployed(pair).double()
    shares = scores.softmax(1) if classifier.output == "logits" else scores
    before, after = shares.amax(1).tolist()
    return before, after


def _mass_flow(metric: Metric, x0: Tensor, x: Tensor, original: Tensor) -> tuple[str | None, str]:
    """Return a picture and a sentence on how mass moved, under the Wasserstein metric only."""
    if not isinstance(metric, Wasserstein):
        return None, ""
    (plans,) = metric.plans(x0[None], x[None])
    mass = float(metric.mass(x0[None]))
    return _uri(mass_flow.draw(original, plans)), mass_flow.sentence(mass, plans)


def _png(image: Tensor) -> str:
    """Return a ``(C, H, W)`` image of values in [0, 1], C in {1, 3}, as a PNG data URI."""
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    if max(picture.size) > 160:
        picture.thumbnail((160, 160))
    return _uri(picture)


def _uri(picture: Image.Image) -> str:
    """Return the picture as a PNG data URI."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
