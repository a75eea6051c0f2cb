"""Do the confidence intervals of a report cover the population, at every order and budget?

The adversarial accuracy of the population is known in closed form: radii are 0 with probability 0.1
(misclassified) and uniform on (0, 1) otherwise. For each of many test sets, a scan is simulated: it
finds adversarial distances (the radius times a random factor above 1) and certified radii (times a
factor below 1). The intervals are those of `audit.statistics`. The table states how often

- the interval of the true radii contains the population's accuracy (at each budget, and for finite
  orders at all budgets and orders simultaneously, as the DKW band guarantees);
- the bracket from the lower end of certified to the upper end of attacked accuracy contains it.

    python -m bench.coverage --draws 5000 --out bench/results/coverage.md
"""

import math

import numpy as np
from numpy.typing import NDArray

from audit.schema import Interval
from audit.statistics.summary import accuracy, accuracy_interval
from bench.table import Table, bench_parser, publish

WRONG = 0.1
"""Share of the population that is misclassified."""

ORDERS = (math.inf, 1.0, 1.5, 2.0, 4.0)
BUDGETS = (0.02, 0.05, 0.1, 0.2, 0.3)


def population_accuracy(delta: float, order: float) -> float:
    """Return A_delta of the population: the adversary flips all radii up to t.

    Flipping them costs (1 - WRONG)·t^(p+1) / (p + 1) = delta^p on average, which gives t.
    """
    if math.isinf(order):
        return (1 - WRONG) * (1 - min(delta, 1.0))
    largest = ((order + 1) * delta**order / (1 - WRONG)) ** (1 / (order + 1))
    return (1 - WRONG) * (1 - min(largest, 1.0))


def report_intervals(
    radii: NDArray[np.float64], wrong: NDArray[np.bool_], order: float, confidence: float
) -> list[Interval]:
    """Return the intervals that a report states for these radii, one per budget."""
    values = accuracy(radii, wrong, BUDGETS, order)
    return [accuracy_interval(float(v), len(radii), order, confidence) for v in values]


def simulate(table: Table, n: int, draws: int, confidence: float, seed: int) -> None:
    """Add a row per order, and one for all finite orders and budgets simultaneously."""
    random = np.random.default_rng(seed)
    covered = {order: np.zeros(len(BUDGETS)) for order in ORDERS}
    bracketed = {order: np.zeros(len(BUDGETS)) for order in ORDERS}
    simultaneous, widths = 0, dict.fromkeys(ORDERS, 0.0)
    for _ in range(draws):
        radii = np.where(random.random(n) < WRONG, 0.0, random.random(n))
        attacked, certified = radii * (1 + random.random(n) / 2), radii * (1 - random.random(n) / 2)
        wrong, all_covered = radii == 0, True
        for order in ORDERS:
            sides = zip(
                *(
                    report_intervals(found, wrong, order, confidence)
                    for found in (radii, attacked, certified)
                ),
                strict=True,
            )
            for budget, (found, above, below) in enumerate(sides):
                true = population_accuracy(BUDGETS[budget], order)
                holds = found.low <= true <= found.high
                covered[order][budget] += holds
                all_covered &= holds or math.isinf(order)
                bracketed[order][budget] += below.low <= true <= above.high
                widths[order] += (found.high - found.low) / draws / len(BUDGETS)
        simultaneous += all_covered
    for order in ORDERS:
        least, bracket = covered[order].min() / draws, bracketed[order].min() / draws
        shares = f"{100 * least:.2f}", f"{100 * bracket:.2f}"
        table.add(n, f"{order:g}", *shares, f"{100 * widths[order]:.1f}")
    table.add(n, "all finite, all budgets", f"{100 * simultaneous / draws:.2f}", "", "")


def main() -> None:
    """Print the table, and write it if a file is named."""
    parser = bench_parser(__doc__, shared=False)
    parser.add_argument("--draws", type=int, default=5000, help="test sets per size")
    parser.add_argument("--sizes", default="100,1000", help="samples per test set")
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    table = Table(
        ("samples", "order", "interval of the true radii", "bracket", "mean width"),
        f"{options.draws} test sets each, seed {options.seed}; nominal coverage "
        f"{100 * options.confidence:g} %. Smallest coverage over the budgets in %; width of the "
        "interval in percentage points.",
    )
    for size in options.sizes.split(","):
        simulate(table, int(size), options.draws, options.confidence, options.seed)
    publish(options.out, table)


if __name__ == "__main__":
    main()
