"""TorchScript and torch.export archives: what is served is what is differentiated."""

from pathlib import Path

import torch
from torch import Tensor

from audit.errors import ModelError
from audit.models import execution, exported, torchscript
from audit.models.classifier import Classifier, Output, Provenance, looks_like_probabilities
from audit.models.execution import Function
from audit.models.finish import spec_for, with_classes
from audit.models.load_options import LoadOptions


def load_torchscript(
    path: Path, sample: Tensor, options: LoadOptions, *, device: torch.device, source: Provenance
) -> Classifier:
    """Load a TorchScript archive."""
    module = torchscript.read_script(path, trusted=options.trust_model, device=device)
    return _classifier(
        module, torchscript.call(module), (), torch.float32, sample, options, device, source
    )


def load_exported(
    path: Path, sample: Tensor, options: LoadOptions, *, device: torch.device, source: Provenance
) -> Classifier:
    """Load a torch.export archive."""
    program, shape, dtype = exported.read_program(path, trusted=options.trust_model)
    run = exported.call(program.module().to(device))
    return _classifier(program, run, shape, dtype, sample, options, device, source)


def _classifier(
    module: torch.jit.ScriptModule | torch.export.ExportedProgram,
    run: Function,
    shape: tuple[int | None, ...],
    dtype: torch.dtype,
    sample: Tensor,
    options: LoadOptions,
    device: torch.device,
    source: Provenance,
) -> Classifier:
    spec = spec_for(sample, shape, dtype, options)
    rows = spec.batch or execution.call_rows(tuple(sample.shape[1:]))
    fixed = spec.batch is not None or device.type == "cpu"
    call = execution.in_calls_of(rows, run) if fixed else run

    def batched(x: Tensor) -> Tensor:
        return call(x.to(device, dtype))

    with torch.no_grad():
        scores = batched(spec.prepare(sample)).float().cpu()
    output: Output = "probabilities" if looks_like_probabilities(scores) else "logits"
    notes: tuple[str, ...] = ()
    attackable: Function = batched
    if output == "probabilities":
        attackable, notes = _logits(module, batched, spec.prepare(sample).to(device, dtype), rows)
    classifier = Classifier(
        spec=spec,
        classes=0,
        output=output,
        gradient="native",
        source=source,
        serve=lambda x: batched(x).float().cpu(),
        copy=batched,
        attackable=attackable,
        device=device,
        notes=notes,
    )
    return with_classes(classifier, sample)


def _logits(
    module: torch.jit.ScriptModule | torch.export.ExportedProgram,
    probabilities: Function,
    example: Tensor,
    rows: int,
) -> tuple[Function, tuple[str, ...]]:
    """What to attack behind probabilities: the logits of the node graph, or their logarithm."""
    from audit.models.graph import as_graph

    try:
        graph = as_graph(module, example.repeat(rows, *[1] * (example.dim() - 1))[:rows])
    except ModelError as error:

        def logarithm(x: Tensor) -> Tensor:
            # Differs from the logits by a constant per row, but vanishes where p underflows.
            return probabilities(x).clamp_min(1e-30).log()

        return logarithm, (
            f"The logits behind the probabilities are out of reach ({error}), so attacks use "
            "log-probabilities.",
        )
    for parameter in graph.parameters():
        parameter.requires_grad_(False)
    return execution.in_calls_of(rows, graph.logits), ()
