"""Linear operators of the `ai.onnx.ml` domain, which scikit-learn exports use."""

import torch
from torch import Tensor

from audit.models.onnx.node import Kernel, Node, operator

ML = "ai.onnx.ml"
# Not part of the standard: leaves out the transform, so that attacks see the raw scores.
RAW = "RAW"


@operator("Scaler", domain=ML)
def scaler(node: Node) -> Kernel:
    """Compute (x − offset)·scale per feature."""
    offset = torch.tensor(node.get("offset", [0.0]))
    scale = torch.tensor(node.get("scale", [1.0]))

    def run(x: Tensor) -> Tensor:
        return (x.float() - offset.to(x.device)) * scale.to(x.device)

    return run


@operator("Normalizer", domain=ML)
def normalizer(node: Node) -> Kernel:
    """Divide rows by their largest value, sum of magnitudes, or Euclidean norm."""
    norm = node.get("norm", "MAX")
    if norm not in ("MAX", "L1", "L2"):
        raise node.refuse(f"norm '{norm}' is not supported")

    def run(x: Tensor) -> Tensor:
        x = x.float()
        if norm == "MAX":
            size = x.amax(-1, keepdim=True)
        else:
            size = torch.linalg.vector_norm(x, 1 if norm == "L1" else 2, -1, keepdim=True)
        return x / torch.where(size == 0, torch.ones_like(size), size)

    return run


@operator("LinearClassifier", domain=ML)
def linear_classifier(node: Node) -> Kernel:
    """Return labels and scores of x·Wᵀ + b; with two classes, W may have a single row."""
    transform = node.get("post_transform", "NONE")
    labels, names = node.get("classlabels_ints"), node.get("classlabels_strings")
    classes = len(labels or names or [])
    weights = torch.tensor(node.get("coefficients"))
    bias = torch.tensor(node.get("intercepts") or [0.0])
    rows = len(bias) if node.get("intercepts") else classes
    weights = weights.reshape(rows, -1)
    node.get("multi_class")
    single = rows == 1 and classes == 2
    known = (RAW, "NONE", "LOGISTIC") if single else (RAW, "NONE", "LOGISTIC", "SOFTMAX")
    if transform not in known or classes < 2 or rows not in (1, classes):
        raise node.refuse(f"post_transform {transform} with {classes} classes is not supported")
    if names and node.outputs[0] and len(node.outputs) < 2:
        raise node.refuse("labels that are strings are not supported")

    def run(x: Tensor) -> tuple[Tensor | None, Tensor]:
        scores = x.float() @ weights.to(x.device).t() + bias.to(x.device)
        index = scores.argmax(-1)
        if single:
            index = (scores[:, 0] > 0).long()
            scores = _two_columns(scores, transform)
        elif transform == "LOGISTIC":
            scores = torch.sigmoid(scores)
        elif transform == "SOFTMAX":
            scores = torch.softmax(scores, -1)
        if labels is None or (single and transform == "NONE"):  # strings, or an unknown threshold
            return None, scores
        return torch.tensor(labels, device=x.device)[index], scores

    return run


def _two_columns(scores: Tensor, transform: str) -> Tensor:
    """Add the score of class 0: the opposite, or 1 − score, as the runtime does even for NONE."""
    if transform == "LOGISTIC":
        return torch.cat([torch.sigmoid(-scores), torch.sigmoid(scores)], 1)
    return torch.cat([-scores if transform == RAW else 1 - scores, scores], 1)


@operator("LinearRegressor", domain=ML)
def linear_regressor(node: Node) -> Kernel:
    """Compute x·Wᵀ + b."""
    targets = node.get("targets", 1)
    weights = torch.tensor(node.get("coefficients")).reshape(targets, -1)
    bias = torch.tensor(node.get("intercepts") or [0.0])
    if node.get("post_transform", "NONE") != "NONE":
        raise node.refuse(f"post_transform {node.get('post_transform')} is not supported")
    return lambda x: x.float() @ weights.to(x.device).t() + bias.to(x.device)


@operator("ArrayFeatureExtractor", domain=ML)
def array_feature_extractor(_: Node) -> Kernel:
    """Select columns of the last axis by index."""

    def run(x: Tensor, places: Tensor) -> Tensor:
        index = places.reshape(-1).to(x.device)
        if x.dim() == 1:  # a vector is returned as one row
            return x.index_select(0, index).unsqueeze(0)
        return x.index_select(-1, index)

    return run


@operator("Binarizer", domain=ML)
def binarizer(node: Node) -> Kernel:
    """Return one where the input exceeds the threshold, else zero."""
    threshold = node.get("threshold", 0.0)
    return lambda x: (x > threshold).to(x.dtype)


@operator("ZipMap", domain=ML, ignores=("classlabels_strings", "classlabels_int64s"))
def zip_map(_: Node) -> Kernel:
    """Return the scores themselves instead of one map per row; columns are in label order."""
    return lambda x: x


@operator("FeatureVectorizer", domain=ML, ignores=("inputdimensions",))
def feature_vectorizer(_: Node) -> Kernel:
    """Concatenate the columns of all inputs."""
    return lambda *parts: torch.cat([part.float().reshape(len(part), -1) for part in parts], 1)
