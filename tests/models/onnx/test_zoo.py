"""A small part of the zoo: files as people export and serve them, values and gradients compared."""

import importlib.util

import pytest
import torch

from audit.health.model import without_fusion
from audit.models import LoadOptions, load_classifier
from audit.models.onnx import lift, read_model
from bench import zoo
from bench.formats import measure

RECIPES = [
    zoo.Recipe("plain", "mlp", "dynamo", 18),
    zoo.Recipe("plain", "cnn", "script", 11),
    zoo.Recipe("plain", "cnn", "dynamo", 20, dynamic=False),
    zoo.Recipe("plain", "resnet_preact", "script", 13, dynamic=False),
    zoo.Recipe("plain", "mobilenet_v3", "script", 17),
    zoo.Recipe("plain", "inception", "script", 17),
    zoo.Recipe("plain", "shufflenet", "script", 11),
    zoo.Recipe("plain", "vit", "script", 17),
    zoo.Recipe("plain", "mixer", "script", 13),
    zoo.Recipe("plain", "lstm_bi2", "script", 17),
    zoo.Recipe("plain", "gru_bi2", "script", 11),
    zoo.Recipe("argmax_softmax", "cnn", "script", 11),
    zoo.Recipe("sigmoid", "resnet", "script", 17),
    zoo.Recipe("uint8_nhwc", "efficientnet", "script", 17),
    zoo.Recipe("resize_bilinear", "resnet", "script", 17, dynamic=False),
    zoo.Recipe("half", "cnn", "script", 17),
    zoo.Recipe("qdq", "mlp", "script", 17),
]
TABLES = [zoo.Recipe("linear", "logistic"), zoo.Recipe("scores", "forest")]
CONVERTERS = importlib.util.find_spec("skl2onnx") is not None


def test_the_names_of_the_zoo_are_different_files():
    names = [recipe.name for recipe in zoo.recipes()]
    assert len(set(names)) == len(names) > 300


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_served_file_has_its_values_and_gradients(recipe, tmp_path):
    assert zoo.attempt(recipe, tmp_path) == ""
    result = measure(tmp_path / f"{recipe.name}.onnx")
    assert result.path == "lifted", result
    assert result.good, result


def test_a_quantised_file_is_also_served_without_fused_kernels(tmp_path):
    """Our copy equals the file's own arithmetic on every processor; fused kernels may saturate."""
    recipe = zoo.Recipe("qdq", "mlp", "script", 17)
    file = zoo.write(recipe, tmp_path)
    x = torch.rand(8, *zoo.NETWORKS["mlp"][1], generator=torch.Generator().manual_seed(0))
    model = load_classifier(file, x, LoadOptions())
    assert model.unfused is not None
    plain = without_fusion(model, x)
    assert (plain - model.copied(x)).abs().max() <= 1e-4 * plain.abs().max()
    other = load_classifier(zoo.write(zoo.Recipe("plain", "mlp", "script", 17), tmp_path), x,
                            LoadOptions())  # fmt: skip
    assert other.unfused is None


@pytest.mark.skipif(not CONVERTERS, reason="skl2onnx is not installed")
@pytest.mark.parametrize("recipe", TABLES, ids=lambda recipe: recipe.name)
def test_a_table_model_is_lifted_or_served_for_its_scores(recipe, tmp_path):
    assert zoo.attempt(recipe, tmp_path) == ""
    result = measure(tmp_path / f"{recipe.name}.onnx")
    assert result.path == ("scores" if recipe.kind == "scores" else "lifted"), result
    assert result.good, result


@pytest.mark.parametrize("network", ["cnn", "mobilenet_v3", "shufflenet", "vit", "lstm_bi2"])
def test_a_row_does_not_depend_on_its_neighbours(network, tmp_path):
    """Within calls of one size, bit by bit, whatever layout the convolutions run in."""
    recipe = zoo.Recipe("plain", network, "script", 17)
    module = lift(read_model(zoo.write(recipe, tmp_path))).eval().requires_grad_(False)
    x = torch.rand(8, *zoo.NETWORKS[network][1], generator=torch.Generator().manual_seed(0))
    others = torch.cat([x[4:5], torch.zeros_like(x[:3]), 9 * x[:1], x[:3]])
    with torch.no_grad():
        assert torch.equal(module(x)[4], module(others)[0])
