"""Health checks: is the evidence itself to be believed?

Each check is a function that returns one `Health` entry: an id, a status and a sentence of finding
and advice. ``fail`` means that the numbers must not be relied on, ``warn`` that they need a look.
Sources: Carlini et al. 2019, Tramer et al. 2020, Croce & Hein 2020 (AutoAttack's flags), Pintor et
al. 2022 (indicators of attack failure).
"""

from audit.health.active import active_test, in_turn
from audit.health.attack import (
    budget_monotone,
    certified_below_attacked,
    random_not_better,
    unbounded_attack,
)
from audit.health.common import PROBE, entry, without_gradients
from audit.health.completeness import completeness, guarded
from audit.health.gradient import finite_differences, gradients
from audit.health.model import (
    batch_invariance,
    clean_accuracy,
    determinism,
    output_kind,
    parity,
    parity_on_adversarial,
    quantised_kernels,
    sample_size,
)
from audit.health.samples import distinct, majority, reading, ties
from audit.health.strength import (
    SETTLED,
    broken,
    convergence,
    iterative_not_worse,
    representable,
    square_not_better,
    transfer,
)

__all__ = [
    "PROBE",
    "SETTLED",
    "active_test",
    "batch_invariance",
    "broken",
    "budget_monotone",
    "certified_below_attacked",
    "clean_accuracy",
    "completeness",
    "convergence",
    "determinism",
    "distinct",
    "entry",
    "finite_differences",
    "gradients",
    "guarded",
    "in_turn",
    "iterative_not_worse",
    "majority",
    "output_kind",
    "parity",
    "parity_on_adversarial",
    "quantised_kernels",
    "random_not_better",
    "reading",
    "representable",
    "sample_size",
    "square_not_better",
    "ties",
    "transfer",
    "unbounded_attack",
    "without_gradients",
]
