"""Scaled dot-product attention and rotary embeddings (opset 23 and later)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from audit.models.onnx.dtypes import TORCH
from audit.models.onnx.node import Kernel, Node, operator


@operator("Attention")
def attention(node: Node) -> Kernel:
    """Compute softmax(Q·Kᵀ·scale + mask)·V per head.

    Supports caches, grouped heads, soft caps and windows.
    """
    heads, kv_heads = node.get("q_num_heads"), node.get("kv_num_heads")
    causal, scale = bool(node.get("is_causal", 0)), node.get("scale")
    cap, mode = node.get("softcap", 0.0), node.get("qk_matmul_output_mode", 0)
    window = (node.get("left_window_size", -1), node.get("right_window_size", -1))
    precision = TORCH.get(node.get("softmax_precision", 0))
    simple = not cap and precision is None and window == (-1, -1) and not node.wants(3)

    def run(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None = None,
        past_k: Tensor | None = None,
        past_v: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        flat = q.dim() == 3
        if flat:
            q, k, v = _heads(q, heads), _heads(k, kv_heads), _heads(v, kv_heads)
        if past_k is not None and past_v is not None:
            k, v = torch.cat([past_k, k], 2), torch.cat([past_v, v], 2)
        _require_shapes(node, q, k, v, mask, valid)
        factor = scale or 1 / math.sqrt(q.shape[-1])
        groups = q.shape[1] // k.shape[1]
        wide_k, wide_v = (_repeated(t, groups) for t in (k, v))
        if simple and mask is None and valid is None and not causal:
            y = F.scaled_dot_product_attention(q, wide_k, wide_v, scale=factor)
            scores = y
        else:
            past = 0 if past_k is None else past_k.shape[2]
            bias = _bias(q, wide_k, mask, causal, window, past, valid)
            y, scores = _attend(q, wide_k, wide_v, bias, factor, cap, precision, mode)
        if flat:
            y = y.transpose(1, 2).flatten(2)
        return y, k, v, scores

    return run


def _require_shapes(
    node: Node, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, valid: Tensor | None
) -> None:
    """Refuse tensors with inconsistent shapes, which the products would broadcast."""
    node.require_shape("query", q, (None, None, None, None))
    batch, heads, queries, size = q.shape
    node.require_shape("key", k, (batch, None, None, size))
    kv_heads, keys = k.shape[1:3]
    node.require_shape("value", v, (batch, kv_heads, keys, None))
    if not kv_heads or heads % kv_heads:
        raise node.refuse(
            f"the query has {heads} heads, which is not a multiple of the {kv_heads} heads of key "
            "and value"
        )
    if valid is not None:
        node.require_shape("nonpad_kv_seqlen", valid, (batch,))
        if bool(((valid < 0) | (valid > keys)).any()):
            raise node.refuse(
                f"nonpad_kv_seqlen is {valid.tolist()}, expected numbers from 0 to {keys}"
            )
    if mask is not None:
        # The mask may be shorter than the keys only if lengths state which keys are real.
        width = mask.shape[-1] if valid is not None and 0 < mask.shape[-1] < keys else keys
        full = (batch, heads, queries, width)[-mask.dim() :] if mask.dim() else (width,)
        shared = [1 if mask.shape[i] == 1 else size for i, size in enumerate(full[:-1])]
        node.require_shape("mask", mask, (*shared, width))


def _heads(x: Tensor, count: int) -> Tensor:
    split: Tensor = x.unflatten(2, (count, -1))
    return split.transpose(1, 2)


def _repeated(x: Tensor, groups: int) -> Tensor:
    return x if groups == 1 else x.repeat_interleave(groups, 1)


def _bias(
    q: Tensor,
    k: Tensor,
    mask: Tensor | None,
    causal: bool,
    window: tuple[int, int],
    past: int,
    valid: Tensor | None,
) -> Tensor:
    """Return what is added to the scores: the mask, and −inf for keys that are not visible."""
    queries, keys = q.shape[2], k.shape[2]
    place = torch.arange(queries, device=q.device).reshape(-1, 1) + past
    key = torch.arange(keys, device=q.device).reshape(1, -1)
    allowed = torch.ones(queries, keys, dtype=torch.bool, device=q.device)
    if valid is not None:
        count = valid.to(q.device).reshape(-1, 1, 1, 1)
        allowed = allowed & (key < count)
        place = place + (count - queries)
    if causal:
        allowed = allowed & (key <= place)
    left, right = window
    if left >= 0:
        allowed = allowed & (key >= place - left)
    if right >= 0:
        allowed = allowed & (key <= place + right)
    bias = torch.zeros((), dtype=q.dtype, device=q.device)
    if mask is not None:
        boolean = mask.dtype is torch.bool
        missing = keys - mask.shape[-1]
        if missing > 0:
            mask = F.pad(mask, (0, missing), value=False if boolean else -torch.inf)
        if boolean:
            allowed = allowed & mask
        else:
            bias = mask
    return torch.where(allowed, bias, torch.full_like(bias, -torch.inf))


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor,
    factor: float,
    cap: float,
    precision: torch.dtype | None,
    stage: int,
) -> tuple[Tensor, Tensor]:
    """Return the output, and the scores at a stage: 0 raw, 1 capped, 2 biased, 3 softmax."""
    root = math.sqrt(factor)
    raw = (q * root) @ (k * root).transpose(-1, -2)
    capped = cap * torch.tanh(raw / cap) if cap else raw
    biased = capped + bias
    dead = (biased == -torch.inf).all(-1, keepdim=True)
    # A query without visible keys outputs zero; the softmax of −inf alone would be NaN.
    logits = torch.where(dead, torch.zeros_like(biased), biased)
    weights = torch.softmax(logits if precision is None else logits.to(precision), -1).to(q.dtype)
    weights = torch.where(dead, torch.zeros_like(weights), weights)
    return weights @ v, (raw, capped, biased, weights)[stage]


@operator("RotaryEmbedding")
def rotary_embedding(node: Node) -> Kernel:
    """Rotate pairs of features by an angle that depends on the position."""
    heads, width = node.get("num_heads"), node.get("rotary_embedding_dim", 0)
    interleaved = bool(node.get("interleaved", 0))

    def run(x: Tensor, cos: Tensor, sin: Tensor, places: Tensor | None = None) -> Tensor:
        flat = x.dim() == 3
        y = x.unflatten(2, (heads, -1)) if flat else x.transpose(1, 2)
        turned = width or y.shape[-1]
        batch, steps = y.shape[:2]
        if places is not None:
            node.require_shape("position_ids", places, (batch, steps))
            node.require_shape("sine cache", sin, tuple(cos.shape))
            # A negative index would count from the end; an index out of range is an error.
            places = torch.where(places < 0, len(cos), places).to(cos.device)
            cos, sin = cos[places], sin[places]
        for what, cache in (("cosine cache", cos), ("sine cache", sin)):
            node.require_shape(what, cache, (batch, steps, turned // 2))
        cos, sin = cos.unsqueeze(2), sin.unsqueeze(2)  # (B, S, 1, turned/2)
        first, rest = y[..., :turned], y[..., turned:]
        if interleaved:
            a, b = first[..., 0::2], first[..., 1::2]
        else:
            a, b = first.chunk(2, -1)
        real, imaginary = cos * a - sin * b, sin * a + cos * b
        if interleaved:
            first = torch.stack([real, imaginary], -1).flatten(-2)
        else:
            first = torch.cat([real, imaginary], -1)
        y = torch.cat([first, rest], -1)
        return y.flatten(2) if flat else y.transpose(1, 2)

    return run
