"""What is certified, beside what is attacked, and what does it cost?

Whole scans of models that were trained to be robust: the bracket at their radius, its width, and
the time of the certificates. Then the settled questions of complete verifiers: none that is broken
may be certified, and of the robust ones many should be.

    python -m bench.certify --out bench/results/certify.md
"""

import argparse
import json
import resource
import sys
import time
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from attackers.geometry import METRICS
from audit.certify.crown import Crown
from audit.certify.network_of_graph import network_of
from audit.certify.search import ProvenRadii, confirmed
from audit.data import open_data
from audit.evidence.samples import read_samples
from audit.models import load_classifier
from audit.options import ScanConfig
from audit.scanning import scan
from bench.subjects import SHARED, SUBJECTS, Subject, prepare
from bench.verdicts import Question

SCANS = (
    ("convex_adversarial_mnist", "linf", "0.1", 1000, "crown"),
    ("sinkhorn_vanilla", "wasserstein", "0.01", 30, "simplex"),
    ("convex_adversarial_mnist", "wasserstein", "0.01", 30, "simplex"),
    ("convex_adversarial_mnist", "l1", "0.5", 100, "simplex"),
    ("cifar_base_kw", "linf", "2/255", 1000, "crown"),
    ("convex_adversarial_mnist", "l1", "0.5", 100, "crown"),
    ("convex_adversarial_mnist", "l2", "0.1", 100, "crown"),
    ("sinkhorn_vanilla", "wasserstein", "0.01", 30, "crown"),
)
"""Model, metric, radius, number of samples, and certificate."""


def bracket(
    shared: Path, name: str, metric: str, radius: str, samples: int, how: str, seed: int
) -> str:
    """One scan at one radius, as a line of the table."""
    delta = float(Fraction(radius))
    config = ScanConfig(metrics=(metric,), deltas=(delta,), samples=samples, seed=seed, certify=how)
    prepared = prepare(shared, SUBJECTS[name], config)
    started = time.process_time()
    done = scan.run(prepared)
    spent = time.process_time() - started
    run = done.evidence[0]
    attacked = float((run.frontier.radius > delta).double().mean())
    certified = float((run.certified.radius >= delta).double().mean())
    correct = done.samples.correct
    ratio = run.certified.radius[correct] / run.frontier.radius[correct]
    cells = (
        name,
        metric,
        how,
        radius,
        str(len(done.samples)),
        f"{100 * float(correct.double().mean()):.1f}",
        f"**{100 * certified:.1f}**",
        f"**{100 * attacked:.1f}**",
        f"{100 * (attacked - certified):.1f}",
        f"{float(run.certified.radius[correct].median()):.5f}",
        f"{float(ratio.median()):.2f}",
        f"{run.certified.certifier.seconds:.0f}",
        f"{spent:.0f}",
    )
    print(" | ".join(cells), file=sys.stderr, flush=True)
    return "| " + " | ".join(cells) + " |"


def settled(shared: Path) -> list[str]:
    """Of the settled questions, how many are certified."""
    entries = json.loads((shared / "specs" / "verdicts.json").read_text(encoding="utf-8"))
    by_model: dict[str, list[Question]] = {}
    for entry in entries:
        by_model.setdefault(entry["model"], []).append(Question(**entry))
    lines = [
        "| model | robust | certified | broken | certified | s |",
        "|---|---|---|---|---|---|",
    ]
    total: Counter[str] = Counter()
    for model, asked in by_model.items():
        counts = answered(shared, SUBJECTS[Path(model).stem], asked)
        total += counts
        lines.append(_counted(Path(model).stem, counts))
        print(lines[-1], file=sys.stderr, flush=True)
    return [*lines, _counted("all", total)]


def answered(shared: Path, subject: Subject, asked: list[Question]) -> Counter[str]:
    """Count the questions about one model by verdict, and those that are certified."""
    dataset = open_data(shared / subject.data, low=0.0, high=1.0)
    asked = [question for question in asked if question.test_index < len(dataset)]
    counts: Counter[str] = Counter()
    if not asked:
        return counts
    x = read_samples(dataset, np.array([question.test_index for question in asked]))
    labels = torch.tensor([question.label for question in asked])
    radii = torch.tensor([question.linf_radius for question in asked], dtype=torch.float64)
    classifier = load_classifier(shared / subject.model, x[:8], subject.loading)
    assert classifier.graph is not None
    started = time.process_time()
    network = network_of(classifier.graph(), classifier.spec.prepare, x[:1]).double()
    crown = Crown(network, METRICS["linf"]())
    correct = classifier.predict(x) == labels
    held = torch.zeros(len(x), dtype=torch.bool)
    for rows in correct.nonzero()[:, 0].split(8):
        asked_for = ProvenRadii(radii[rows], {})
        proven, _ = confirmed(crown, x[rows], labels[rows], asked_for)
        held[rows] = proven >= radii[rows]
    for question, certain in zip(asked, held.tolist(), strict=True):
        counts[question.verdict] += 1
        counts[f"{question.verdict} certified"] += certain
    counts["seconds"] = round(time.process_time() - started)
    return counts


def _counted(name: str, counts: Counter[str]) -> str:
    columns = ("robust", "robust certified", "broken", "broken certified", "seconds")
    return "| " + " | ".join([name, *(str(counts[column]) for column in columns)]) + " |"


def main() -> None:
    """Print the tables, and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of the samples of every scan")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    args = parser.parse_args()
    lines = [
        f"Seed {args.seed}, torch {torch.__version__}, {torch.get_num_threads()} thread(s). "
        "Accuracies in % of all samples at the radius; certificates on the clock, whole scans in "
        "seconds of the processor.",
        "",
        "| model | metric | certificate | radius | samples | clean | certified | attacked | "
        "width | median certified radius | over attacked | certificates, s | scan, s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, metric, radius, samples, how in SCANS:
        count = max(1, round(args.share * samples))
        lines.append(bracket(args.shared, name, metric, radius, count, how, args.seed))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    lines += ["", f"Largest memory of the process: {peak:.2f} GiB."]
    lines += ["", "Questions settled by complete verifiers (linf):", "", *settled(args.shared)]
    text = "\n".join(lines) + "\n"
    print(text)
    if args.out:
        args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
