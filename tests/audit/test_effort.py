"""Effort presets: what they allow is what attacks spend at most, and it is in the report."""

import pytest
from fakes import classifier, inputs, linear, scan_of

from audit.api.verdicts import Gates
from audit.errors import UsageError
from audit.scanning import scan
from audit.scanning.assemble import report_of
from audit.scanning.effort import EFFORTS
from audit.schema import ScanReport
from reports import html, terminal

X = inputs(24)
LABELS = classifier(linear).predict(X)
OPTIONS = {"metrics": ("linf",), "deltas": (0.05, 0.2), "orders": (float("inf"), 2.0)}


def scanned(effort: str, **options: object) -> ScanReport:
    outcome = scan.run(
        scan_of(classifier(linear), X, LABELS, effort=effort, **{**OPTIONS, **options})
    )
    return report_of(outcome, config={}, gates=Gates().evaluate)


@pytest.mark.parametrize("effort", ["quick", "standard"])
@pytest.mark.parametrize("attack", ["minimal", "apgd", "square", "hopskipjump", "pgd"])
def test_no_attack_spends_more_than_allowed(effort: str, attack: str) -> None:
    report = scanned(effort, attacks=(attack,))
    spent = next(entry for entry in report.threats[0].attacks if entry.name == attack)
    allowed = EFFORTS[effort].budget(attack)
    assert spent.budget == allowed
    assert allowed is not None
    assert spent.gradients is not None
    assert spent.forwards is not None
    shares = len(X) * (1 if allowed.per == "sample" else len(OPTIONS["deltas"]))
    # Each run of an attack at a radius looks once more at where it ended.
    assert spent.gradients <= shares * (allowed.gradients or 0)
    assert spent.gradients > 0 or attack in ("square", "hopskipjump", "apgd")
    if allowed.gradients is None:
        judged = 3 * len(X) * 20
        assert 0 < spent.forwards <= shares * (allowed.forwards or 0) + judged


def test_more_effort_allows_more() -> None:
    for attack in ("minimal", "apgd", "square", "hopskipjump"):
        budgets = [EFFORTS[name].budget(attack) for name in ("quick", "standard", "max")]
        spent = [(b.gradients or 0) + (b.forwards or 0) for b in budgets if b is not None]
        assert spent == sorted(spent)
        assert len(set(spent)) == 3


def test_the_allowance_is_in_every_report() -> None:
    report = scanned("standard")
    gradients = EFFORTS["standard"].budget("minimal")
    assert gradients is not None
    sentence = f"At most {gradients.gradients} gradients per sample."
    assert sentence in html.render(report)
    assert "gradients per sample" in " ".join(terminal.render(report).split())


def test_an_unknown_effort_is_refused() -> None:
    with pytest.raises(UsageError, match="quick, standard, max"):
        scanned("extreme")
