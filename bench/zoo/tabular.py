"""Classifiers of table rows, as scikit-learn and LightGBM are served."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx


def rows() -> tuple[np.ndarray, np.ndarray]:
    """200 rows of 8 numbers with three classes."""
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(200, 8)).astype(np.float32)
    return x, (x @ rng.normal(size=(8, 3)) + 0.3 * np.sin(9 * x[:, :3])).argmax(1)


def forest() -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(12, max_depth=4, random_state=0)


def boosting() -> Any:
    from sklearn.ensemble import GradientBoostingClassifier

    return GradientBoostingClassifier(n_estimators=8, max_depth=2, random_state=0)


def vectors() -> Any:
    from sklearn.svm import SVC

    return SVC(probability=False, random_state=0, decision_function_shape="ovr")


def neighbours() -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(3)


def logistic() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))


def normalised() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer

    return make_pipeline(Normalizer(), LogisticRegression(max_iter=300))


def perceptron() -> Any:
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler

    return make_pipeline(MinMaxScaler(), MLPClassifier((16,), max_iter=80, random_state=0))


def lightgbm() -> Any:
    from lightgbm import LGBMClassifier

    return LGBMClassifier(n_estimators=8, num_leaves=7, verbose=-1, random_state=0)


# name -> model to train; those of LINEAR have gradients, the others scores alone
SCORES: dict[str, Callable[[], Any]] = {
    "forest": forest,
    "boosting": boosting,
    "svm": vectors,
    "neighbours": neighbours,
    "lightgbm": lightgbm,
}
LINEAR: dict[str, Callable[[], Any]] = {
    "logistic": logistic,
    "normalised_logistic": normalised,
    "perceptron": perceptron,
}


def write_tabular(name: str, file: Path, *, zipmap: bool) -> None:
    """Train one of the models on `rows` and convert it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x, y = rows()
        model = {**SCORES, **LINEAR}[name]().fit(x, y)
        onnx.save(_converted(name, model, zipmap), file)


def _converted(name: str, model: Any, zipmap: bool) -> onnx.ModelProto:
    if name == "lightgbm":
        from onnxmltools import convert_lightgbm
        from onnxmltools.convert.common.data_types import FloatTensorType

        return convert_lightgbm(
            model, initial_types=[("x", FloatTensorType([None, 8]))], zipmap=zipmap, target_opset=15
        )
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    last = model.steps[-1][1] if hasattr(model, "steps") else model
    return to_onnx(
        model,
        initial_types=[("x", FloatTensorType([None, 8]))],
        options={id(last): {"zipmap": zipmap}},
        target_opset=18,
    )
