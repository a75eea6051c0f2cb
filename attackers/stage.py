"""How a stage of an effort preset runs one attack, as data, and what it may spend."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """Runs of one attack on the samples that it could still improve.

    Attributes:
        loss: a name of `attackers.losses.LOSSES`, ``targeted`` for one run per rival class, or
            None for an attack that takes no loss.
        runs: number of runs, each from another random point or at another class.
        steps: gradients of each run; queries for an attack without gradients. 0 keeps the
            attack's own default.
        warm: start from the nearest example known instead of a random point.
        first_step: length of the first step in radii; two cross the whole ball.
        scout: queries of Square that look for the start. Where gradients mislead, a random search
            lands in the right region and gradients finish there: on a model trained against linf
            attacks this breaks in 1,000 passes what takes either alone 5,000 (measured).
        first: number of the first run, where earlier stages made the runs before it.
        shared: run only where the budget is shared between samples (finite orders), on samples
            whose radius is comparable to the budgets: what is saved on them pays for others.
    """

    loss: str | None = None
    runs: int = 1
    steps: int = 0
    warm: bool = False
    first_step: float = 2.0
    scout: int = 0
    first: int = 0
    shared: bool = False


@dataclass(frozen=True)
class Cost:
    """The most that a stage spends on a sample: gradients, and forward passes without one."""

    gradients: int = 0
    forwards: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        """Return the sum of both."""
        return Cost(self.gradients + other.gradients, self.forwards + other.forwards)
