"""RNN, GRU and LSTM: each direction is a loop over time, and the directions are stacked."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from audit.models.onnx.gradients import wrapped
from audit.models.onnx.node import Kernel, Node, operator

Activation = Callable[[Tensor], Tensor]
# (input part (B, G·H), hidden (B, H), cell state (B, H) or None) -> new hidden, new cell state.
State = tuple[Tensor, Tensor | None]
Cell = Callable[[Tensor, Tensor, Tensor | None], State]

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}


def _activation(node: Node, name: str, alpha: float | None, beta: float | None) -> Activation:
    plain: dict[str, Activation] = {
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "relu": torch.relu,
        "softsign": F.softsign,
        "softplus": F.softplus,
    }
    if name.lower() in plain and alpha is None and beta is None:
        return plain[name.lower()]
    if name.lower() == "leakyrelu":
        return lambda x: F.leaky_relu(x, 0.01 if alpha is None else alpha)
    if name.lower() == "elu":
        return lambda x: F.elu(x, 1.0 if alpha is None else alpha)
    if name.lower() == "hardsigmoid":
        slope, offset = 0.2 if alpha is None else alpha, 0.5 if beta is None else beta
        return lambda x: torch.clamp(slope * x + offset, 0, 1)
    raise node.refuse(f"activation {name} with alpha {alpha} and beta {beta} is not supported")


def _rnn_cell(f: list[Activation], r: Tensor, bias: Tensor, peep: Tensor | None) -> Cell:
    return lambda x, h, _: (f[0](x + F.linear(h, r, bias)), None)


def _gru_cell(
    f: list[Activation], r: Tensor, bias: Tensor, peep: Tensor | None, *, late: bool
) -> Cell:
    """Build a cell with gates z, r, h.

    If `late`, the reset gate is applied after the recurrent product, as in torch.
    """
    size = r.shape[1]
    r_gates, r_new = r[: 2 * size], r[2 * size :]
    b_gates, b_new = bias[: 2 * size], bias[2 * size :]

    def run(x: Tensor, h: Tensor, _: Tensor | None) -> State:
        z, reset = f[0](x[:, : 2 * size] + F.linear(h, r_gates, b_gates)).chunk(2, 1)
        late_part = reset * F.linear(h, r_new, b_new) if late else None
        part = F.linear(reset * h, r_new, b_new) if late_part is None else late_part
        new = f[1](x[:, 2 * size :] + part)
        return (1 - z) * new + z * h, None

    return run


def _lstm_cell(f: list[Activation], r: Tensor, bias: Tensor, peep: Tensor | None) -> Cell:
    """Build a cell with gates i, o, f, c and peepholes in the order i, o, f."""
    peeps = None if peep is None else peep.chunk(3)

    def run(x: Tensor, h: Tensor, c: Tensor | None) -> State:
        assert c is not None
        i, o, forget, new = (x + F.linear(h, r, bias)).chunk(4, 1)
        if peeps is not None:
            i, forget = i + peeps[0] * c, forget + peeps[2] * c
        c = f[0](forget) * c + f[0](i) * f[1](new)
        if peeps is not None:
            o = o + peeps[1] * c
        return f[0](o) * f[2](c), c

    return run


def _run_direction(
    x: Tensor, w: Tensor, bias: Tensor, cell: Cell, state: State, lengths: Tensor | None, back: bool
) -> tuple[Tensor, State]:
    """Run one direction over x (T, B, I); return all hidden states (T, B, H) and the last state.

    Beyond its length a sequence keeps its state and outputs zero. Backwards, the padding comes
    first, so the state keeps its initial value until the sequence begins. As in the runtime, the
    last state of a sequence of length 0 is zero.
    """
    projected = F.linear(x, w, bias)
    hidden, memory = state
    outputs = []
    times = range(x.shape[0])
    for time in reversed(times) if back else times:
        new, remembered = cell(projected[time], hidden, memory)
        if lengths is None:
            hidden, memory = new, remembered
            outputs.append(hidden)
            continue
        alive = (lengths > time).unsqueeze(1)
        hidden = torch.where(alive, new, hidden)
        if remembered is not None and memory is not None:
            memory = torch.where(alive, remembered, memory)
        outputs.append(torch.where(alive, new, torch.zeros_like(new)))
    if lengths is not None:
        begun = (lengths > 0).unsqueeze(1)
        hidden = torch.where(begun, hidden, torch.zeros_like(hidden))
        memory = None if memory is None else torch.where(begun, memory, torch.zeros_like(memory))
    return torch.stack(outputs[::-1] if back else outputs), (hidden, memory)


def _fused(x: Tensor, w: Tensor, r: Tensor, bias: Tensor | None, states: list[Tensor]) -> Any:
    """Run torch's LSTM, forward or bidirectional, with the gates reordered to i, f, c, o."""

    def order(gates: Tensor) -> Tensor:
        i, o, f, c = gates.chunk(4)
        return torch.cat([i, f, c, o])

    weights = []
    for d in range(len(w)):
        weights += [order(w[d]), order(r[d])]
        if bias is not None:
            weights += [order(part) for part in bias[d].chunk(2)]
    y, hidden, memory = torch.lstm(
        x, states, weights, bias is not None, 1, 0.0, False, len(w) == 2, False
    )
    return y.unflatten(2, (len(w), -1)).transpose(1, 2), hidden, memory


def _require_shapes(
    node: Node,
    directions: int,
    size: int,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    rest: Sequence[Tensor | None],
) -> None:
    """Refuse tensors with inconsistent shapes; torch's kernels would read out of bounds.

    Args:
        node: a node of one of the three operators.
        directions: number of directions, one or two.
        size: size of the hidden state.
        x: input, with time first.
        w: input weights.
        r: recurrent weights.
        rest: bias, sequence lengths, initial hidden and cell state, peepholes; states with the
            direction first.
    """
    gates = GATES[node.operator]
    node.require_shape("input X", x, (None, None, None))
    steps, batch, width = x.shape
    state = (directions, batch, size)
    node.require_shape("weight W", w, (directions, gates * size, width))
    node.require_shape("weight R", r, (directions, gates * size, size))
    expected = {
        "bias B": (directions, 2 * gates * size),
        "sequence_lens": (batch,),
        "initial_h": state,
        "initial_c": state,
        "peephole P": (directions, 3 * size),
    }
    for (what, sizes), value in zip(expected.items(), rest, strict=True):
        if value is not None:
            node.require_shape(what, value, sizes)
    if node.operator != "LSTM" and any(value is not None for value in rest[3:]):
        raise node.refuse("a cell state or peepholes were given, which only an LSTM has")
    lengths = rest[1]
    if lengths is not None and bool(((lengths < 0) | (lengths > steps)).any()):
        raise node.refuse(
            f"sequence_lens is {lengths.tolist()}, expected numbers from 0 to {steps}"
        )


# The lengths stay on the CPU because every call reads their values.
@operator("RNN", "GRU", "LSTM", static=(4,))
def recurrent(node: Node) -> Kernel:
    """Run an RNN, GRU or LSTM: forward, reverse or bidirectional."""
    direction = node.get("direction", "forward")
    if direction not in ("forward", "reverse", "bidirectional"):
        raise node.refuse(f"direction '{direction}' is not supported")
    backwards = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[direction]
    functions = _functions(node, len(backwards))
    batch_first = bool(node.get("layout", 0))
    make = _maker(node)
    # The loop covers every variant; torch's fused kernel is several times faster if it applies.
    plain = (
        node.operator == "LSTM"
        and "activations" not in node.attributes
        and True not in backwards[:1]
    )
    size = node.get("hidden_size")
    if not isinstance(size, int) or size < 1:
        raise node.refuse(f"hidden_size is {size}, expected a positive number")
    if node.get("clip") is not None or node.get("input_forget", 0):
        raise node.refuse("clip and input_forget are not supported")

    def run(x: Tensor, w: Tensor, r: Tensor, *rest: Tensor | None) -> tuple[Tensor, ...]:
        optional: list[Tensor | None] = [*rest, *[None] * (5 - len(rest))]
        bias, lengths, h0, c0, peep = optional
        if batch_first:
            x = x.transpose(0, 1)
            h0, c0 = (None if s is None else s.transpose(0, 1) for s in (h0, c0))
        _require_shapes(node, len(backwards), size, x, w, r, (bias, lengths, h0, c0, peep))
        if plain and lengths is None and peep is None and not wrapped(x):
            zero = x.new_zeros(len(w), x.shape[1], size)
            states = [zero if state is None else state for state in (h0, c0)]
            return _laid_out(*_fused(x, w, r, bias, states), batch_first=batch_first)
        lengths = None if lengths is None else lengths.to(x.device)
        outputs, hiddens, memories = [], [], []
        for i, back in enumerate(backwards):
            width = w.shape[1]
            both = x.new_zeros(2 * width) if bias is None else bias[i]
            start = x.new_zeros(x.shape[1], size)
            state = (
                start if h0 is None else h0[i],
                (start if c0 is None else c0[i]) if node.operator == "LSTM" else None,
            )
            cell = make(functions[i], r[i], both[width:], None if peep is None else peep[i])
            y, (hidden, memory) = _run_direction(x, w[i], both[:width], cell, state, lengths, back)
            outputs.append(y)
            hiddens.append(hidden)
            memories.append(memory)
        return _joined(outputs, hiddens, memories, batch_first)

    return run


def _joined(
    outputs: list[Tensor], hiddens: list[Tensor], memories: list[Any], batch_first: bool
) -> tuple[Tensor, ...]:
    """Return Y (T, D, B, H), Y_h and Y_c (D, B, H); with layout 1 the batch comes first."""
    last = [] if memories[0] is None else [torch.stack(memories)]
    stacked = (torch.stack(outputs, 1), torch.stack(hiddens), *last)
    return _laid_out(*stacked, batch_first=batch_first)


def _laid_out(y: Tensor, *last: Tensor, batch_first: bool) -> tuple[Tensor, ...]:
    if not batch_first:
        return (y, *last)
    return (y.permute(2, 0, 1, 3), *(state.transpose(0, 1) for state in last))


def _maker(node: Node) -> Callable[..., Cell]:
    if node.operator == "RNN":
        return _rnn_cell
    if node.operator == "LSTM":
        return _lstm_cell
    late = bool(node.get("linear_before_reset", 0))
    return lambda f, r, bias, peep: _gru_cell(f, r, bias, peep, late=late)


def _functions(node: Node, directions: int) -> list[list[Activation]]:
    """Return the activations of each direction, with their own parameters where given."""
    default = DEFAULTS[node.operator]
    names = node.get("activations") or default * directions
    alphas, betas = node.get("activation_alpha") or [], node.get("activation_beta") or []
    if len(names) != len(default) * directions:
        raise node.refuse(
            f"{len(names)} activations were given, expected {len(default) * directions}"
        )
    alphas += [None] * (len(names) - len(alphas))
    betas += [None] * (len(names) - len(betas))
    if any(value == 0.0 for value in alphas + betas):
        alphas, betas = [value or None for value in alphas], [value or None for value in betas]
    found = [
        _activation(node, name, alpha, beta)
        for name, alpha, beta in zip(names, alphas, betas, strict=True)
    ]
    return [found[i : i + len(default)] for i in range(0, len(found), len(default))]
