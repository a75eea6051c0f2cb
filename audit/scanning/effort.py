"""Presets of the effort of a scan: attack budgets in gradients and forward passes per sample.

The numbers are upper limits: a broken sample costs nothing more, and after the search for minimal
radii, only samples near a budget are attacked again at that budget. The presets are data; the cost
of a stage is stated by the attack's entry in the registry.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from attackers import ATTACKS
from attackers.stage import Cost, Stage
from audit.schema import AttackBudget


@dataclass(frozen=True)
class Effort:
    """One preset.

    Attributes:
        name: name of the preset.
        stages: runs of each attack, in order. An attack that is not listed runs once with its own
            defaults.
        near: after a search for minimal radii, samples whose radius is within this factor of a
            budget that the user named are attacked again at that budget.
        near_grid: the same factor for the many budgets of the default grid.
        draws: noise draws per sample for the certificate of a smoothed model.
        radii: radii tried per sample for a certificate by bound propagation.
        tuning: gradient steps that optimise the slopes of the relaxations, at each radius.
        work: largest number of multiplications that such certificates may spend on intermediate
            bounds; where more are needed, those bounds come from interval arithmetic.
        doublings: how often the steps are doubled if the convergence check does not pass.
        generator_training: number of epochs and largest number of images for a generator that the
            scan trains.
    """

    name: str
    stages: Mapping[str, tuple[Stage, ...]] = field(hash=False)
    near: float
    near_grid: float
    draws: int
    radii: int
    tuning: int
    work: float
    doublings: int
    generator_training: tuple[int, int]

    def stages_of(self, attack: str, times: int = 1) -> tuple[Stage, ...]:
        """Return the stages of an attack with ``times`` as many steps."""
        stages = self.stages.get(attack, (Stage(),))
        return tuple(replace(stage, steps=times * stage.steps) for stage in stages)

    def budget(self, attack: str, times: int = 1) -> AttackBudget | None:
        """Return the most that an attack may spend on a sample, or None without a preset."""
        if attack not in self.stages:
            return None
        entry = ATTACKS[attack]
        spent = sum((entry.spends(stage) for stage in self.stages_of(attack, times)), Cost())
        if spent == Cost():
            return None
        return AttackBudget(
            gradients=spent.gradients or None, forwards=spent.forwards or None, per=entry.per
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
            near=1.1,
            near_grid=1.0,
            stages={
                "minimal": (Stage(runs=2, steps=25),),
                "hopskipjump": (Stage(steps=1000),),
                "pgd": PGD,
                "apgd": (
                    Stage("ce", steps=30),
                    Stage("margin", steps=20, first_step=0.3, scout=200),
                ),
                "transport": (Stage("margin", steps=40),),
                "wagan": (Stage(),),
                "square": (Stage(steps=300),),
            },
            draws=1_000,
            radii=3,
            tuning=0,
            work=1e11,
            doublings=0,
            generator_training=(2, 5_000),
        ),
        Effort(
            name="standard",
            near=1.2,
            near_grid=1.05,
            stages={
                "minimal": (
                    Stage(runs=2, steps=50),
                    Stage(runs=1, steps=50, first=2, shared=True),
                ),
                "hopskipjump": (Stage(steps=5000),),
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
            draws=10_000,
            radii=3,
            tuning=6,
            work=1e12,
            doublings=1,
            generator_training=(4, 20_000),
        ),
        Effort(
            name="max",
            near=2.0,
            near_grid=1.5,
            stages={
                "minimal": (
                    Stage(runs=6, steps=100),
                    Stage(runs=6, steps=100, first=6, shared=True),
                ),
                "hopskipjump": (Stage(steps=25000),),
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
            draws=100_000,
            radii=8,
            tuning=20,
            work=1e15,
            doublings=2,
            generator_training=(20, 100_000),
        ),
    )
}
"""Presets of ``--effort``: a quick first scan, the default, and the strongest."""
