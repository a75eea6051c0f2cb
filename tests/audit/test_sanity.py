"""A model at chance stops the scan, and the message names the option that mends it."""

import numpy as np
import pytest
import torch
from fakes import classifier, dataset_of, inputs, linear, noisy_labels, samples_of
from torch import Tensor

from audit.errors import DataError, NothingToEvaluate
from audit.evidence.chance import chance_level, require_better_than_chance
from audit.evidence.samples import choose, evaluate
from audit.models.classifier import Classifier
from audit.models.preprocess import InputSpec
from audit.options import ScanConfig
from audit.scanning.scan import prepare

CLASSES = 10
RANDOM = torch.Generator().manual_seed(0)
TEMPLATES = torch.rand((CLASSES, 3, 8, 8), generator=RANDOM)


def nearest_template(x: Tensor) -> Tensor:
    """Ten classes: how near an image in the reading of training is to each template."""
    return -(x.reshape(len(x), 1, -1) - TEMPLATES.reshape(1, CLASSES, -1)).square().sum(2)


def images(n: int = 200) -> tuple[Tensor, Tensor]:
    labels = torch.arange(n) % CLASSES
    noise = torch.rand((n, 3, 8, 8), generator=torch.Generator().manual_seed(1)) - 0.5
    return (TEMPLATES[labels] + 0.3 * noise).clamp(0, 1), labels


def refuse(served: Classifier, x: Tensor, labels: Tensor) -> str:
    with pytest.raises(DataError) as caught:
        require_better_than_chance(served, samples_of(served, x, labels))
    assert caught.value.exit_code == 2
    return str(caught.value)


def reading(**changes: object) -> InputSpec:
    return InputSpec((3, 8, 8), (None, 3, 8, 8), torch.float32, "chw", **changes)  # type: ignore[arg-type]


def of_images(run: object, spec: InputSpec) -> Classifier:
    return classifier(run, classes=CLASSES, spec=spec)  # type: ignore[arg-type]


def test_a_good_model_passes() -> None:
    x, labels = images()
    model = of_images(nearest_template, reading())
    require_better_than_chance(model, samples_of(model, x, labels))


@pytest.mark.parametrize(
    ("trained_on", "option"),
    [
        (lambda x: x / 255, "--std 1/255 (inputs of 0 to 255) looks right"),
        (lambda x: (x + 1) / 2, "--mean .5 --std .5 (inputs of -1 to 1) looks right"),
    ],
    ids=["0..255", "-1..1"],
)
def test_a_wrong_scale_is_named(trained_on: object, option: str) -> None:
    x, labels = images()

    def strict(v: Tensor) -> Tensor:
        unit = trained_on(v)  # type: ignore[operator]
        # Trained on well-spread inputs: squeezed ones all look alike.
        squeezed = (unit.flatten(1).std(1) < 0.2) | ((unit.flatten(1).mean(1) - 0.5).abs() > 0.2)
        scores = nearest_template(unit)
        return torch.where(squeezed[:, None], -torch.arange(CLASSES).float(), scores)

    message = refuse(of_images(strict, reading()), x, labels)
    assert option in message
    assert "100.0%" in message
    assert "20 of 200 samples (10.0%)" in message
    assert "with 10 classes" in message


def test_a_wrong_layout_is_named() -> None:
    x, labels = images()

    def channels_last(v: Tensor) -> Tensor:
        return nearest_template(v.reshape(len(v), 8, 8, 3).permute(0, 3, 1, 2))

    spec = InputSpec((3, 8, 8), (None, None), torch.float32, "chw")  # a flat input tells nothing
    message = refuse(of_images(channels_last, spec), x, labels)
    assert "Suggestion: --layout hwc looks right" in message
    assert "--layout hwc: 100.0%" in message


def test_needless_normalisation_is_named() -> None:
    x, labels = images()
    spec = reading(mean=(9.0,), std=(0.1,))
    message = refuse(of_images(nearest_template, spec), x, labels)
    assert "no --mean and --std looks right" in message


def test_wrong_labels_are_not_blamed_on_an_option() -> None:
    x, labels = images()
    message = refuse(of_images(nearest_template, reading()), x, (labels + 1) % CLASSES)
    assert "looks right" not in message
    assert "check that labels, --layout, --mean, --std, --low and --high" in message
    assert "Tried on 200 samples: --layout" in message


def test_too_few_wrong_samples_leave_nothing_to_evaluate() -> None:
    x, labels = images(5)
    model = of_images(nearest_template, reading())
    with pytest.raises(NothingToEvaluate, match="None of the 5 samples") as caught:
        require_better_than_chance(model, samples_of(model, x, (labels + 1) % CLASSES))
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
def test_guessing_is_below_the_level_and_it_stays_reachable(classes: int) -> None:
    random = np.random.default_rng(0)
    for n in (20, 100, 1000):
        level = chance_level(classes, n)
        assert 1 / classes < level <= 0.9
        guesses = random.binomial(n, 1 / classes, 2000) / n
        assert (guesses > level).mean() < 0.03
    assert chance_level(10, 1000) == pytest.approx(0.2)


def test_a_subset_is_random_seeded_and_in_order() -> None:
    rows = choose(1000, 100, 3)
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert len(rows) == 100
    assert choose(1000, 100, 3).tolist() == rows.tolist()
    assert choose(1000, 100, 4).tolist() != rows.tolist()
    assert rows.max() > 800  # not the first rows of the file
    for wanted in (None, 10, 11):
        assert choose(10, wanted, 0).tolist() == list(range(10))
    # Every row is drawn as often as any other.
    counts = np.bincount(np.concatenate([choose(20, 5, seed) for seed in range(2000)]))
    assert np.abs(counts - 500).max() < 100


def test_ties_count_as_wrong_and_streams_follow_content() -> None:
    model = classifier(linear)
    x = inputs(4)
    x[1] = 0.5  # exactly on the boundary
    labels = torch.zeros(4, dtype=torch.long)
    samples = evaluate(model, x, labels, np.array([5, 7, 8, 9]), 0)
    assert not samples.correct[1]
    assert samples.index.tolist() == [5, 7, 8, 9]
    assert samples.accuracy == int(samples.correct.sum()) / 4
    backwards = evaluate(model, x.flip(0), labels, np.arange(4), 0)
    assert backwards.generator.keys == samples.generator.keys[::-1]
    assert evaluate(model, x, labels, np.arange(4), 1).generator != samples.generator
    assert len(set(evaluate(model, x[:1].repeat(2, 1), labels[:2], np.arange(2), 0)
                   .generator.keys)) == 1  # fmt: skip


def test_probes_are_the_same_samples_in_any_order() -> None:
    model, x = classifier(linear), inputs(50)
    labels = noisy_labels(x)
    samples = samples_of(model, x, labels)
    rows = samples.probe(10)
    assert len(rows) == 10
    assert samples.correct[rows].all()
    backwards = samples_of(model, x.flip(0), labels.flip(0))
    assert torch.equal(backwards.x[backwards.probe(10)], samples.x[rows])
    assert len(samples.probe(1000)) == int(samples.correct.sum())


def test_preparing_checks_data_model_and_their_fit() -> None:
    x = inputs(200)
    labels = noisy_labels(x)
    config = ScanConfig(samples=150, seed=2)
    scan = prepare(dataset_of(x, labels), config, lambda *_: classifier(linear))
    assert len(scan.samples) == 150
    assert torch.equal(scan.samples.x, x[scan.samples.index])
    assert any("150 of 200 samples was audited (seed 2)" in w for w in scan.warnings)
    with pytest.raises(DataError, match="at chance"):
        prepare(dataset_of(x, 1 - labels), config, lambda *_: classifier(linear))
    with pytest.raises(DataError, match="label 2"):
        prepare(dataset_of(x, labels + 1), config, lambda *_: classifier(linear))
