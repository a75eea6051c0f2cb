from pathlib import Path

import onnxruntime as ort
import pytest
import torch

from audit.models.onnx import lift, read_model

FOLDER = Path(__file__).resolve().parents[4] / "shared" / "data" / "models"
FILES = sorted(FOLDER.glob("**/*.onnx"))


@pytest.mark.skipif(not FILES, reason="the shared models are not beside this repository")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_served_model_has_its_values_and_gradients(path):
    made = read_model(path)
    lifted = lift(made)
    shape = [2 if size is None else size for size in lifted.input_shape]
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run([lifted.output_name], {lifted.input_name: x.detach().numpy()})[0]
    assert (lifted(x) - torch.from_numpy(expected)).abs().max() < 1e-4
    if lifted.differentiable:
        (gradient,) = torch.autograd.grad(lifted.logits(x).square().sum(), x)
        assert gradient.isfinite().all()
    assert lifted.differentiable == (path.stem != "sinkhorn_binarize")
