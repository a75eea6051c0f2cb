"""Do our attacks break what complete verifiers have shown to be breakable, and nothing else?

`specs/verdicts.json` holds questions that are settled: a network, a test image and an linf radius,
either `broken` by a counterexample or proven `robust`. Each network is scanned once, on exactly its
images and at exactly its radii, in the box [0, 1].

    python -m bench.verdicts --out bench/results/verdicts.md
"""

import argparse
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from audit.data import Dataset, open_data
from audit.models import load_classifier
from audit.options import ScanConfig
from audit.scanning import scan
from bench.subjects import SHARED, SUBJECTS, Subject


@dataclass(frozen=True)
class Question:
    """A settled question, as the file has it."""

    set: str
    model: str
    dataset: str
    test_index: int
    label: int
    linf_radius: float
    verdict: str


@dataclass(frozen=True)
class Answer:
    """The smallest confirmed distance for a question's image."""

    question: Question
    radius: float

    @property
    def broken(self) -> bool:
        """Whether an adversarial example within the question's radius was confirmed."""
        return self.radius <= self.question.linf_radius


def restricted(dataset: Dataset, index: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> Dataset:
    """The given rows of a data set, as a data set."""
    return replace(
        dataset, labels=dataset.labels[index], fetch=lambda rows: dataset.fetch(index[rows])
    )


def answers(shared: Path, subject: Subject, questions: list[Question], seed: int) -> list[Answer]:
    """Scan one network on the images of its questions; those beyond the data are left out."""
    dataset = open_data(shared / subject.data, low=0.0, high=1.0)
    questions = [question for question in questions if question.test_index < len(dataset)]
    index = np.array(sorted({question.test_index for question in questions}))
    dataset = restricted(dataset, index)
    row_of = {test_index: row for row, test_index in enumerate(index.tolist())}
    for question in questions:
        assert dataset.labels[row_of[question.test_index]] == question.label, question
    config = ScanConfig(
        metrics=("linf",),
        orders=(math.inf,),
        deltas=tuple(sorted({question.linf_radius for question in questions})),
        seed=seed,
        **({"effort": "max"} if hasattr(ScanConfig, "effort") else {}),
    )
    model = shared / subject.model
    prepared = scan.run(
        scan.prepare(dataset, config, lambda x, _: load_classifier(model, x, subject.loading))
    )
    radius = prepared.evidence[0].frontier.radius.tolist()
    return [Answer(question, radius[row_of[question.test_index]]) for question in questions]


HEADER = [
    "set", "model", "no image", "settled as broken", "broken by us", "proven robust",
    "broken by us", "s",
]  # fmt: skip


def row(model: str, questions: int, found: list[Answer], seconds: float) -> list[str]:
    asked = Counter(answer.question.verdict for answer in found)
    done = Counter(answer.question.verdict for answer in found if answer.broken)
    return [
        found[0].question.set,
        model,
        f"{questions - len(found)}",
        f"{asked['broken']}",
        f"**{done['broken']}**",
        f"{asked['robust']}",
        f"**{done['robust']}**",
        f"{seconds:.0f}",
    ]


def disagreements(found: Iterable[Answer]) -> list[str]:
    """One line per question that we answer differently."""
    return [
        f"- {answer.question.model}, image {answer.question.test_index}, radius "
        f"{answer.question.linf_radius:g}: {answer.question.verdict}, our nearest example is at "
        f"{answer.radius:.6g}"
        for answer in found
        if answer.broken != (answer.question.verdict == "broken")
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=SHARED)
    parser.add_argument("--models", help="names, by default all that are asked about")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    options = parser.parse_args()
    with open(options.shared / "specs" / "verdicts.json", encoding="utf-8") as file:
        questions = [Question(**entry) for entry in json.load(file)]
    asked = list(dict.fromkeys(Path(question.model).stem for question in questions))

    lines = ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    open_questions = []
    for name in options.models.split(",") if options.models else asked:
        mine = [question for question in questions if Path(question.model).stem == name]
        started = time.perf_counter()
        found = answers(options.shared, SUBJECTS[name], mine, options.seed)
        cells = row(name, len(mine), found, time.perf_counter() - started)
        lines.append("| " + " | ".join(cells) + " |")
        print(lines[-1], file=sys.stderr)
        open_questions += disagreements(found)
    text = "\n".join(
        [
            f"Seed {options.seed}, torch {torch.__version__}, {torch.get_num_threads()} threads.",
            "",
            *lines,
            "",
            *(open_questions or ["Every question is answered as it is settled."]),
            "",
        ]
    )
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
