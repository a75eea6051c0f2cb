"""The smoothed classifier: its noise, its polls, what attacks see of it, and a scan of it."""

import math

import numpy as np
import pytest
import torch
from fakes import WEIGHT, classifier, dataset_of, inputs, key, linear
from torch import Tensor

from attackers.geometry import L2
from attackers.losses import misclassified, outvoted
from audit.errors import UsageError
from audit.evidence.judge import judge_candidates
from audit.models.smoothed import SOFT_DRAWS, Noise, generator_of, poll, smooth, votes_settled
from audit.options import ScanConfig
from audit.scanning import scan
from audit.scanning.result import ScanResult
from audit.scanning.subject import Subject

NOISE = Noise(0.1, "gaussian")
MODEL = classifier(linear)
SMOOTHED = smooth(MODEL, NOISE, 0)


def test_gaussian_noise_is_in_the_users_units() -> None:
    noise = Noise(0.3, "gaussian").patterns((5,), 20_000, generator_of(0))
    assert noise.std(0).numpy() == pytest.approx(0.3, rel=0.05)
    assert noise.mean(0).numpy() == pytest.approx(0, abs=0.02)
    assert NOISE.scale(inputs(3)).tolist() == [1.0] * 3


def test_flows_keep_the_mass_of_every_channel() -> None:
    noise = Noise(0.2, "flow")
    pattern = noise.patterns((3, 4, 5), 50, generator_of(0))
    assert pattern.shape == (50, 3, 4, 5)
    assert pattern.sum((2, 3)).numpy() == pytest.approx(0, abs=1e-5)
    # One pixel has one edge only: what it gains is that edge's flow, a Laplace variable.
    single = noise.patterns((1, 1, 2), 50_000, generator_of(0))[:, 0, 0]
    assert torch.equal(single[:, 0], -single[:, 1])
    assert float(single[:, 1].std()) == pytest.approx(0.2, rel=0.02)
    # E|X| of a Laplace law is its scale.
    assert float(single.abs().mean()) == pytest.approx(0.2 / math.sqrt(2), rel=0.02)


def test_flows_are_shares_of_the_mass_of_the_whole_image() -> None:
    x = torch.full((2, 3, 4, 4), 0.5)
    x[1] = 0.25
    assert Noise(0.1, "flow").scale(x).tolist() == [24, 12]
    assert Noise(0.1, "flow", low=0.25).scale(x).tolist() == [12, 0]


def test_a_poll_is_a_function_of_the_input_alone() -> None:
    x = inputs(20)
    together = SMOOTHED.deployed(x)
    assert torch.equal(together, SMOOTHED.deployed(x))
    assert torch.equal(together.flip(0), SMOOTHED.deployed(x.flip(0)))
    assert torch.equal(together[7:8], SMOOTHED.deployed(x[7:8]))


def test_clear_votes_settle_and_close_ones_tie() -> None:
    unit = WEIGHT / WEIGHT.norm()
    x = 0.5 + torch.tensor([-0.5, -0.15, 0.0, 1e-3, 0.15, 0.5])[:, None] * unit
    scores = SMOOTHED.deployed(x)
    assert scores.argmax(1)[[0, 1, 4, 5]].tolist() == [0, 0, 1, 1]
    assert scores[2:4, 0].equal(scores[2:4, 1])
    ones = torch.ones(6, dtype=torch.int64)
    # An open vote is an error from the start, but never a success of an attack.
    assert outvoted(scores, ones).tolist() == [True, True, False, False, False, False]
    assert misclassified(scores, ones).tolist() == [True, True, True, True, False, False]
    # Phi(1.5) of the votes, within what 64 to 1,024 of them can say.
    assert float(scores[4, 1]) == pytest.approx(0.933, abs=0.08)


def test_votes_settle_wrongly_no_more_often_than_the_level() -> None:
    """Of three equally likely classes none may be settled above the label, but this often."""
    random = np.random.default_rng(0)
    votes = torch.from_numpy(random.multinomial(200, [1 / 3] * 3, 20_000))
    above = votes_settled(votes, 0.05)[:, 0] & (votes[:, 0] < votes.amax(1))
    # Two classes could be; either with probability at most 0.05.
    assert 0.01 < float(above.double().mean()) <= 0.1
    level = 0.05
    for a, b in ((40, 24), (39, 25), (64, 0), (10, 9)):
        tail = sum(math.comb(a + b, k) for k in range(a, a + b + 1)) / 2 ** (a + b)
        assert votes_settled(torch.tensor([[a, b]]), level)[0].tolist() == [True, tail <= level]


def test_models_without_a_vote_are_settled_for_none() -> None:
    silent = classifier(lambda x: torch.zeros((len(x), 2)))
    scores = poll(silent, NOISE, 0, inputs(2))
    assert scores.tolist() == [[0.0, 0.0]] * 2
    assert not outvoted(scores, torch.zeros(2, dtype=torch.int64)).any()


def test_attacks_see_the_mean_softmax_of_fixed_draws() -> None:
    x = inputs(5).requires_grad_()
    seen: list[Tensor] = []

    def look(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return linear(x)

    logits = smooth(classifier(look, fixed_calls=False), NOISE, 0).differentiable(x)
    (noisy,) = seen
    assert noisy.shape == (5 * SOFT_DRAWS, 4)
    votes = linear(noisy).softmax(1).reshape(5, SOFT_DRAWS, 2).mean(1)
    assert torch.allclose(logits.detach().exp(), votes, atol=1e-6)
    shifts = (noisy.reshape(5, SOFT_DRAWS, 4) - x.detach()[:, None]).round(decimals=5)
    assert torch.equal(shifts, shifts[:1].expand_as(shifts)) or torch.allclose(
        shifts, shifts[:1].expand_as(shifts), atol=2e-5
    )
    assert float(torch.autograd.grad(logits[:, 1].sum(), x)[0].abs().min()) > 0
    assert torch.equal(SMOOTHED.differentiable(x[2:3]), SMOOTHED.differentiable(x)[2:3])


def test_the_judge_walks_on_until_the_votes_are_settled() -> None:
    x0 = inputs(12)
    labels = SMOOTHED.predict(x0)
    clear = ~misclassified(SMOOTHED.deployed(x0), labels)
    x0, labels = x0[clear], labels[clear]
    unit = WEIGHT / WEIGHT.norm()
    margin = linear(x0)[:, 1] / WEIGHT.norm()
    boundary = x0 - 1.02 * margin[:, None] * unit
    assert not outvoted(SMOOTHED.deployed(boundary), labels).all()
    verdict = judge_candidates(SMOOTHED, L2(), x0, boundary, labels)
    assert verdict.broken.all()
    assert (verdict.distance > margin.abs()).all()
    assert outvoted(SMOOTHED.deployed(verdict.x), labels).all()


def smoothed_scan(**options: object) -> Subject:
    x = inputs(60)
    labels = linear(x).argmax(1)
    labels[:6] = 1 - labels[:6]
    config = ScanConfig(**{"smooth": 0.1, "effort": "quick", "orders": (math.inf,), **options})
    return scan.prepare(dataset_of(x, labels), config, lambda *_: MODEL)


@pytest.fixture(scope="module")
def done() -> ScanResult:
    return scan.run(smoothed_scan(metrics=("l2", "linf"), deltas=(0.05, 0.2)))


def test_certificates_lie_below_and_attacks_above_the_true_radius(done: ScanResult) -> None:
    assert done.classifier.base is not None
    samples = done.samples
    exact = linear(samples.x)[:, 1].double().abs()
    for run, norm in zip(done.evidence, (WEIGHT.norm(), WEIGHT.abs().sum()), strict=True):
        certified, attacked = run.certified.radius, run.frontier.radius
        true = exact / norm.double()
        right = samples.correct
        assert (certified <= true).all()
        assert (attacked[right] >= true[right]).all()
        assert attacked[right].isfinite().double().mean() > 0.9
        found = right & attacked.isfinite()
        # The votes are settled a fraction of sigma beyond the boundary.
        assert (attacked[found] <= 1.8 * true[found] + 0.1).all()
        assert run.certified.certifier.name == "smoothing"
    assert (done.evidence[0].certified.radius[samples.correct] > 0).double().mean() > 0.8


def test_the_scan_says_of_what_it_speaks(done: ScanResult) -> None:
    text = " ".join(done.warnings)
    assert "All numbers are those of the smoothed model" in text
    assert "Gaussian noise of sigma 0.1 in the units of the input" in text
    undecided = misclassified(SMOOTHED.deployed(done.samples.x), done.samples.labels) & ~outvoted(
        SMOOTHED.deployed(done.samples.x), done.samples.labels
    )
    assert f"On {int(undecided.sum())} of 60 samples the votes do not settle" in text
    assert {"parity": "pass", "determinism": "pass", "batch_invariance": "pass"}.items() <= {
        key(entry): entry.status for entry in done.health
    }.items()


def test_without_gradients_a_smoothed_model_is_searched_at_random() -> None:
    blind = classifier(linear, gradients=False)
    x = inputs(40)
    config = ScanConfig(
        metrics=("l2",), smooth=0.1, effort="quick", orders=(math.inf,), deltas=(0.5,)
    )
    outcome = scan.run(scan.prepare(dataset_of(x, linear(x).argmax(1)), config, lambda *_: blind))
    (run,) = outcome.evidence
    assert [entry.name for entry in run.attacks] == ["random"]
    assert run.frontier.broken.any()
    assert (run.certified.radius <= run.frontier.radius).all()
    assert run.certified.radius.max() > 0.1


def test_certification_can_be_left_out() -> None:
    outcome = scan.run(smoothed_scan(metrics=("l2",), certify="none", attacks=("fgsm",)))
    assert outcome.evidence[0].certified.certifier.name == "trivial"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"smooth": 0.0}, "--smooth must be positive and finite, found 0"),
        ({"smooth": -1.0}, "--smooth must be positive and finite, found -1"),
        ({"smooth": math.inf}, "--smooth must be positive and finite, found inf"),
        ({"smooth": 0.1, "metrics": ("l2", "wasserstein")}, "scan wasserstein alone"),
        ({"smooth": 0.1, "certify": "crown"}, "applies to the model without noise"),
        ({"smooth": 50.0}, "no better than chance: choose less noise"),
    ],
)
def test_what_cannot_be_smoothed_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        smoothed_scan(**options)


def test_the_seed_is_in_the_noise() -> None:
    x = inputs(20)
    other = smooth(MODEL, NOISE, 1)
    assert not torch.equal(other.differentiable(x), SMOOTHED.differentiable(x))
    assert not torch.equal(other.deployed(x), SMOOTHED.deployed(x))
