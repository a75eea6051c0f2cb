"""Scan a tiny network with its copy on the CPU or the simulated device, and print the results.

    python -m tests.scan_on_device FOLDER cpu|sim NAME

Run this in a separate process, because the simulated device patches torch.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import torch

SCANS: dict[str, dict[str, Any]] = {
    "default": {"metrics": ("linf",), "deltas": (0.1,), "samples": 6},
    "bounds": {
        "metrics": ("linf", "l2"),
        "deltas": (0.02, 0.3),
        "certify": "crown",
    },
    "corners": {"metrics": ("wasserstein",), "deltas": (0.01, 0.1), "certify": "simplex"},
    "intervals": {"metrics": ("l1",), "deltas": (0.1,), "certify": "crown-ibp"},
    "noise": {"metrics": ("l2",), "deltas": (0.3,), "smooth": 0.25},
    "flow": {"metrics": ("wasserstein",), "deltas": (0.1,), "smooth": 0.005},
    "law": {
        "metrics": ("linf",),
        "deltas": (0.05,),
        "attacks": ("w-pgd", "pgd", "square"),
        "certify": "none",
    },
}
"""Options of each scan; `default`, `bounds` and `corners` run all attacks of a default scan."""


def main(folder: Path, where: str, name: str) -> None:
    """Run one scan of `model.onnx` and `data.npz` in a folder."""
    if where == "sim":
        import tests.simulated_device  # noqa: F401  (patches torch)

    from audit.api.verdicts import Gates
    from audit.data import open_data
    from audit.models import LoadOptions
    from audit.models.load_onnx import load_onnx
    from audit.options import ScanConfig
    from audit.scanning import scan
    from audit.scanning.assemble import report_of

    device = torch.device(where)

    def load(sample: torch.Tensor, classes: int) -> Any:
        path = folder / "model.onnx"
        return load_onnx(path, sample, LoadOptions(), device=device, label_classes=classes)

    config = ScanConfig(orders=(math.inf, 2.0), effort="quick", **SCANS[name])
    data = open_data(folder / "data.npz", low=0.0, high=1.0)
    done = scan.run(scan.prepare(data, config, load))
    report = report_of(done, config={}, gates=Gates().evaluate)
    found = {
        "device": str(done.classifier.device),
        "clean": report.clean.value,
        "warnings": report.warnings,
        "health": {f"{entry.id} {entry.metric}": entry.status for entry in report.health},
        "threats": [
            {
                "metric": run.metric.name,
                "certifier": [run.certified.certifier.name, run.certified.certifier.status],
                "certified": run.certified.radius.tolist(),
                "attacked": run.frontier.radius.tolist(),
                "attacks": {entry.name: entry.status for entry in threat.attacks},
                "curves": [
                    [
                        [point.attacked.value, point.certified.value, point.first_order]
                        for point in curve.points
                    ]
                    for curve in threat.curves
                ],
            }
            for run, threat in zip(done.evidence, report.threats, strict=True)
        ],
    }
    json.dump(found, sys.stdout, default=lambda value: value.model_dump())


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
