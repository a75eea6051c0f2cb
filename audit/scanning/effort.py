"""How hard a scan tries: presets of attack budgets, in gradients and forward passes per sample.

The numbers are upper limits: a sample that is broken costs nothing more, and after the search for
minimal radii only samples near a budget are attacked there again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from attackers.minimal import RIVALS
from audit.schema import AttackBudget


@dataclass(frozen=True)
class Stage:
    """Runs of one attack at a fixed radius, on the samples that stand.

    Attributes:
        loss: a name of `attackers.losses.LOSSES`, ``targeted`` for one run per rival class, or
            None for an attack that takes no loss.
        runs: how many, each from another random point, or at another class.
        steps: gradients of each; queries for an attack that has none.
        warm: whether to start from the nearest example known instead.
        first_step: length of the first step in radii; two cross the whole ball.
        scout: queries of Square that look for the start. Where gradients mislead, a random search
            lands in the right region and gradients finish there: on a model trained against linf
            attacks this breaks in 1,000 passes what takes either alone 5,000 (measured).
    """

    loss: str | None = None
    runs: int = 1
    steps: int = 0
    warm: bool = False
    first_step: float = 2.0
    scout: int = 0


@dataclass(frozen=True)
class Effort:
    """One preset.

    Attributes:
        name: of the preset.
        hunts: of the search for minimal radii, on every sample.
        more_hunts: where the budget is shared between samples (finite orders), on those whose
            radius is of the order of the budgets: what is saved on them pays for others.
        hunt_steps: gradients of each hunt.
        near: after the search, samples within this factor of a budget that the user named are
            attacked there again.
        near_grid: the same for the many budgets of the default grid.
        stages: of each attack at a fixed radius, in order.
        queries: model calls of a decision-based attack.
        radii: that are tried per sample for a certificate by bound propagation.
        tuning: gradients that look for good slopes of its lines, at each radius.
        work: products that such certificates may spend on the bounds before the margins; beyond it
            those come from interval arithmetic.
        draws: of noise per sample, for the certificate of a smoothed model.
        doublings: how often steps are doubled where the convergence check asks for it.
        generator_training: epochs, and largest number of images, of a generator that the scan
            trains.
    """

    name: str
    hunts: int
    more_hunts: int
    hunt_steps: int
    near: float
    near_grid: float
    stages: Mapping[str, tuple[Stage, ...]] = field(hash=False)
    queries: int
    draws: int
    radii: int
    tuning: int
    work: float
    doublings: int
    generator_training: tuple[int, int]

    def stages_of(self, attack: str, times: int = 1) -> tuple[Stage, ...]:
        """The runs of an attack with so many times the steps, or its defaults without a preset."""
        stages = self.stages.get(attack, (Stage(),))
        return tuple(replace(stage, steps=times * stage.steps) for stage in stages)

    def budget(self, attack: str, times: int = 1) -> AttackBudget | None:
        """The most that an attack may spend on a sample, or None where it has no preset."""
        if attack == "minimal":
            searches = 1 + (self.more_hunts > 0)
            spent = (self.hunts + self.more_hunts) * (self.hunt_steps + 1) + searches + RIVALS
            return AttackBudget(gradients=spent, per="sample")
        if attack == "hopskipjump":
            return AttackBudget(forwards=self.queries, per="sample")
        if attack not in self.stages:
            return None
        stages = self.stages_of(attack, times)
        spent = sum(stage.runs * stage.steps for stage in stages)
        if attack == "square":
            return AttackBudget(forwards=spent, per="sample and budget")
        if attack == "wagan":
            # Between draws the model is asked once; its own passes are not the model's.
            draws = sum(stage.runs - 1 for stage in stages if not stage.steps)
            if not spent and not draws:
                return None
            return AttackBudget(
                gradients=spent + 1 if spent else None,
                forwards=draws or None,
                per="sample and budget",
            )
        return AttackBudget(
            gradients=spent + sum(stage.runs for stage in stages),
            forwards=sum(stage.runs * stage.scout for stage in stages) or None,
            per="sample and budget",
        )


PGD = (
    Stage("margin", steps=40, warm=True, first_step=0.5),
    Stage("ce", runs=2, steps=40),
    Stage("margin", runs=2, steps=40),
)

EFFORTS: dict[str, Effort] = {
    effort.name: effort
    for effort in (
        Effort(
            name="quick",
            hunts=2,
            more_hunts=0,
            hunt_steps=25,
            near=1.1,
            near_grid=1.0,
            stages={
                "pgd": PGD,
                "apgd": (
                    Stage("ce", steps=30),
                    Stage("margin", steps=20, first_step=0.3, scout=200),
                ),
                "transport": (Stage("margin", steps=40),),
                "wagan": (Stage(),),
                "square": (Stage(steps=300),),
            },
            queries=1000,
            draws=1_000,
            radii=3,
            tuning=0,
            work=1e11,
            doublings=0,
            generator_training=(2, 5_000),
        ),
        Effort(
            name="standard",
            hunts=2,
            more_hunts=1,
            hunt_steps=50,
            near=1.2,
            near_grid=1.05,
            stages={
                "pgd": PGD,
                "apgd": (
                    Stage("ce", steps=50),
                    Stage("margin", runs=4, steps=30, first_step=0.3, scout=500),
                    Stage("targeted", runs=3, steps=30),
                ),
                "transport": (Stage("margin", steps=100), Stage("ce", runs=2, steps=60)),
                "wagan": (Stage(runs=2), Stage("margin", steps=20)),
                "square": (Stage(steps=2500),),
            },
            queries=5000,
            draws=10_000,
            radii=3,
            tuning=6,
            work=1e12,
            doublings=1,
            generator_training=(4, 20_000),
        ),
        Effort(
            name="max",
            hunts=6,
            more_hunts=6,
            hunt_steps=100,
            near=2.0,
            near_grid=1.5,
            stages={
                "pgd": PGD,
                "apgd": (
                    Stage("margin", steps=100, warm=True, first_step=0.5),
                    Stage("ce", runs=5, steps=100),
                    Stage("margin", runs=5, steps=100),
                    Stage("targeted", runs=9, steps=100),
                    Stage("margin", runs=5, steps=50, first_step=0.3, scout=2000),
                ),
                "transport": (
                    Stage("margin", steps=200),
                    Stage("ce", runs=4, steps=100),
                    Stage("targeted", runs=9, steps=100),
                ),
                "wagan": (Stage(runs=10), Stage("margin", steps=50)),
                "square": (Stage(steps=10000),),
            },
            queries=25000,
            draws=100_000,
            radii=8,
            tuning=20,
            work=1e15,
            doublings=2,
            generator_training=(20, 100_000),
        ),
    )
}
"""``--effort``: a first look, the default, and everything."""
