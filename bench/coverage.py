"""Do the intervals hold out of sample, at every order and budget?

A population whose adversarial accuracy is known in closed form: radii are 0 with probability 0.1
(misclassified) and uniform on (0, 1) otherwise. Thousands of test sets are drawn from it; of each
we see verified adversarial distances (the radius times a random factor above 1) and certified
radii (times one below 1), as a scan does. Counted is how often

- the interval of the true radii holds the population's accuracy (both sides, at each budget, and
  for finite orders at all budgets and orders at once, as the DKW band claims);
- the bracket from the certified lower end to the attacked upper end does.

    python -m bench.coverage --draws 5000 --out bench/results/coverage.md
"""

import argparse
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audit.statistics.confidence import ConfidenceInterval, clopper_pearson, dkw
from audit.statistics.knapsack import adversarial_accuracy

WRONG = 0.1
"""Share of the population that is misclassified."""

ORDERS = (math.inf, 1.0, 1.5, 2.0, 4.0)
BUDGETS = (0.02, 0.05, 0.1, 0.2, 0.3)

Floats = NDArray[np.float64]


def population_accuracy(delta: float, order: float) -> float:
    """A_delta of the population: the knapsack flips all radii up to t.

    (1 - WRONG)·t^(p+1) / (p + 1) = delta^p is what flipping them costs on average.
    """
    if math.isinf(order):
        return (1 - WRONG) * (1 - min(delta, 1.0))
    reach = ((order + 1) * delta**order / (1 - WRONG)) ** (1 / (order + 1))
    return (1 - WRONG) * (1 - min(reach, 1.0))


def interval(value: float, n: int, order: float, confidence: float) -> ConfidenceInterval:
    """The interval that the report gives."""
    if math.isinf(order):
        return clopper_pearson(round(value * n), n, confidence)
    return dkw(value, n, confidence)


def simulate(n: int, draws: int, confidence: float, seed: int) -> list[str]:
    """One line of the table per order."""
    random = np.random.default_rng(seed)
    each = {order: np.zeros(len(BUDGETS)) for order in ORDERS}
    bracketed = {order: np.zeros(len(BUDGETS)) for order in ORDERS}
    together, widths = 0, dict.fromkeys(ORDERS, 0.0)
    for _ in range(draws):
        radii = np.where(random.random(n) < WRONG, 0.0, random.random(n))
        above, below = radii * (1 + random.random(n) / 2), radii * (1 - random.random(n) / 2)
        whole = True
        for order in ORDERS:
            values, tops, bottoms = (
                adversarial_accuracy(seen, np.array(BUDGETS), order)
                for seen in (radii, above, below)
            )
            for place, delta in enumerate(BUDGETS):
                true = population_accuracy(delta, order)
                low, high = interval(float(values[place]), n, order, confidence)
                holds = low <= true <= high
                each[order][place] += holds
                whole &= holds or math.isinf(order)
                bottom = interval(float(bottoms[place]), n, order, confidence).low
                top = interval(float(tops[place]), n, order, confidence).high
                bracketed[order][place] += bottom <= true <= top
                widths[order] += (high - low) / draws / len(BUDGETS)
        together += whole
    lines = []
    for order in ORDERS:
        least, bracket = each[order].min() / draws, bracketed[order].min() / draws
        lines.append(
            f"| {n} | {order:g} | {100 * least:.2f} | {100 * bracket:.2f} | "
            f"{100 * widths[order]:.1f} |"
        )
    lines.append(f"| {n} | all finite, all budgets at once | {100 * together / draws:.2f} | | |")
    return lines


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=5000)
    parser.add_argument("--sizes", default="100,1000")
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    args = parser.parse_args()
    lines = [
        f"{args.draws} test sets each, seed {args.seed}; nominal {100 * args.confidence:g} %. "
        "Coverage in %, the least over the budgets; width of the interval in points.",
        "",
        "| samples | order | interval of the true radii | bracket | mean width |",
        "|---|---|---|---|---|",
    ]
    for size in args.sizes.split(","):
        lines += simulate(int(size), args.draws, args.confidence, args.seed)
    text = "\n".join(lines) + "\n"
    print(text)
    if args.out:
        args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
