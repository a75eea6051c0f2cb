"""The models of `../shared/data` with their data and preprocessing: what the benches look at."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from audit.data import open_data
from audit.models import Classifier, LoadOptions, load_classifier, onnx_runtime
from audit.models.onnx import lift, read_model
from audit.options import ScanConfig
from audit.scanning import scan
from audit.scanning.subject import Subject as ScanSubject

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
MNIST = "mnist/t10k-images-idx3-ubyte.gz"
CIFAR = "cifar10/cifar10_test_first2000.bin"
CIFAR_MEAN = (0.4914, 0.4822, 0.4465)


@dataclass(frozen=True)
class Subject:
    """A model with its data and preprocessing."""

    model: str
    data: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    layout: str | None = None

    @property
    def loading(self) -> LoadOptions:
        """What our loader has to be told about the model."""
        return LoadOptions(mean=self.mean, std=self.std, layout=self.layout, device="cpu")


SUBJECTS = {
    "sinkhorn_vanilla": Subject("models/mnist/sinkhorn_vanilla.onnx", MNIST),
    "fast_adversarial_pgd_madry": Subject("models/mnist/fast_adversarial_pgd_madry.onnx", MNIST),
    "convex_adversarial_mnist": Subject("models/mnist/convex_adversarial_mnist.onnx", MNIST),
    "Convnet_maxpool": Subject("models/mnist/Convnet_maxpool.onnx", MNIST),
    "mnist-net_256x2": Subject("models/mnist/mnist-net_256x2.onnx", MNIST),
    "ffnnSIGMOID__Point_6x200": Subject("models/mnist/ffnnSIGMOID__Point_6x200.onnx", MNIST),
    "cora_mnist-point": Subject("models/mnist/cora_mnist-point.onnx", MNIST, layout="cwh"),
    "resnet_2b": Subject(
        "models/cifar10/resnet_2b.onnx", CIFAR, CIFAR_MEAN, (0.2471, 0.2435, 0.2616)
    ),
    "eran_conv_small_pgd": Subject(
        "models/cifar10/eran_conv_small_pgd.onnx", CIFAR, CIFAR_MEAN, (0.2023, 0.1994, 0.2010)
    ),
    "cifar_base_kw": Subject(
        "models/cifar10/cifar_base_kw.onnx", CIFAR, (0.485, 0.456, 0.406), (0.225,)
    ),
    "cifar10_small": Subject("models/cifar10/cifar10_small.onnx", CIFAR, layout="hwc"),
}


def prepare(shared: Path, subject: Subject, config: ScanConfig) -> ScanSubject:
    """The seeded samples of a subject and its served model, ready for `audit.scanning.scan.run`."""
    dataset = open_data(shared / subject.data, low=config.low, high=config.high)
    model = shared / subject.model
    return scan.prepare(dataset, config, lambda x, _: load_classifier(model, x, subject.loading))


class Plain(nn.Module):
    """The lifted model as a peer takes it: a module from samples to logits.

    It has the preprocessing of our classifier and calls the network once per batch, whatever its
    size: no padding to calls of a fixed shape, no counting.
    """

    def __init__(self, classifier: Classifier, sample: torch.Tensor) -> None:
        super().__init__()
        self.network = lift(read_model(Path(classifier.source.path)))
        self.eval().requires_grad_(False)
        self._prepare = classifier.spec.prepare
        example = self._prepare(sample[:4])
        self._run = onnx_runtime.batched(self.network.input_shape[0], self.network.logits, example)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Samples ``(B, *sample)`` to logits ``(B, K)``."""
        return self._run(self._prepare(x)).flatten(1)
