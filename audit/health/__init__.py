"""Health checks, which test whether the evidence of a scan can be trusted.

A check is a registered function (`audit.health.registry`) of one frozen value
(`audit.health.subjects`); importing this package registers all checks.
Sources: Carlini et al. 2019, Tramer et al. 2020, Croce & Hein 2020 (AutoAttack's flags), Pintor et
al. 2022 (indicators of attack failure).
"""

# Checks run and are reported in the order of these imports. The order matters in one place:
# `convergence` (strength) may cause attacks to be rerun, so the checks that depend on the results
# of those attacks come after it.
# isort: off
from audit.health import model, samples, gradient
from audit.health import attack, strength, active, transferred, eight_bit, agreement
from audit.health import completeness
# isort: on

from audit.health.registry import CHECKS, Check, CheckResult, check, checks_of
from audit.health.samples import compare_with_majority
from audit.health.subjects import MetricSubject, ModelSubject, ScanSubject

__all__ = [
    "CHECKS",
    "Check",
    "CheckResult",
    "MetricSubject",
    "ModelSubject",
    "ScanSubject",
    "active",
    "agreement",
    "attack",
    "check",
    "checks_of",
    "compare_with_majority",
    "completeness",
    "eight_bit",
    "gradient",
    "model",
    "samples",
    "strength",
    "transferred",
]
