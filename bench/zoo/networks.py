"""The zoo's networks, each in the smallest size that still has every operator of its kind."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 10


def convolution(inputs: int, outputs: int, size: int = 3, stride: int = 1, groups: int = 1):
    """Convolution without bias, batch norm behind it."""
    pad = size // 2
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, pad, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    )


def head(inputs: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, CLASSES))


class Residual(nn.Module):
    """x + body(x), through `after`."""

    def __init__(
        self, body: nn.Module, skip: nn.Module | None = None, after: nn.Module | None = None
    ):
        super().__init__()
        self.body = body
        self.skip = skip or nn.Identity()
        self.after = after or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Both ways, added."""
        return self.after(self.body(x) + self.skip(x))


class Branches(nn.Module):
    """Several bodies on one input, joined along the channels."""

    def __init__(self, *bodies: nn.Module):
        super().__init__()
        self.bodies = nn.ModuleList(bodies)

    def forward(self, x: Tensor) -> Tensor:
        """All results, concatenated."""
        return torch.cat([body(x) for body in self.bodies], 1)


class SqueezeExcite(nn.Module):
    """Channels scaled by a small network of their means."""

    def __init__(self, channels: int, gate: nn.Module, activation: nn.Module):
        super().__init__()
        inner = max(channels // 4, 4)
        self.body = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, inner, 1),
            activation,
            nn.Conv2d(inner, channels, 1),
            gate,
        )

    def forward(self, x: Tensor) -> Tensor:
        """The input times its gates."""
        return x * self.body(x)


class Shuffle(nn.Module):
    """ShuffleNet's exchange of channels between groups, through a five-dimensional reshape."""

    def __init__(self, groups: int):
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """The same channels in another order."""
        b, c, h, w = x.shape
        return x.view(b, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(b, c, h, w)


class ShuffleUnit(nn.Module):
    """Half of the channels pass, half are convolved, then they are shuffled."""

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        self.body = nn.Sequential(
            convolution(half, half, 1),
            nn.ReLU(),
            convolution(half, half, 3, groups=half),
            convolution(half, half, 1),
            nn.ReLU(),
        )
        self.shuffle = Shuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        """One unit of stride 1."""
        left, right = x.chunk(2, dim=1)
        return self.shuffle(torch.cat([left, self.body(right)], 1))


class Turned(nn.Module):
    """A body that mixes the other axis of (B, tokens, channels)."""

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """Transpose, mix, transpose."""
        return self.body(x.transpose(1, 2)).transpose(1, 2)


class Patches(nn.Module):
    """An image as a row of embedded patches."""

    def __init__(self, width: int, size: int):
        super().__init__()
        self.embed = nn.Conv2d(3, width, size, size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, patches, width)."""
        return self.embed(x).flatten(2).transpose(1, 2)


class Mean(nn.Module):
    """The mean over the tokens."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, C)."""
        return x.mean(1)


class Recurrent(nn.Module):
    """A recurrent network over the rows of a sequence, classified by its last state."""

    def __init__(self, kind: type[nn.RNNBase], bidirectional: bool, layers: int):
        super().__init__()
        self.core = kind(12, 16, layers, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(32 if bidirectional else 16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, 12) to scores."""
        return self.head(self.core(x)[0][:, -1])


class Encoder(nn.Module):
    """torch's own transformer encoder behind patches, with a class token and positions."""

    def __init__(self, width: int = 64, layers: int = 4, heads: int = 4, size: int = 32):
        super().__init__()
        self.patches = Patches(width, 4)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.1)
        self.position = nn.Parameter(torch.randn(1, (size // 4) ** 2 + 1, width) * 0.1)
        layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.core = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Scores from the class token."""
        tokens = self.patches(x)
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), tokens], 1)
        return self.head(self.core(tokens + self.position)[:, 0])


class Hidden(nn.Module):
    """A `transformers` model that returns its logits alone."""

    def __init__(self, core: nn.Module):
        super().__init__()
        self.core = core

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        return self.core(x).logits


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(3 * 16 * 16, 48), nn.ReLU(), nn.Linear(48, 32), nn.Tanh(),
        nn.Linear(32, CLASSES),
    )  # fmt: skip


def cnn() -> nn.Module:
    return nn.Sequential(
        convolution(3, 16), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True),
        convolution(16, 32), nn.LeakyReLU(0.1), nn.AvgPool2d(3, 2, 1, ceil_mode=True),
        nn.Flatten(), nn.Linear(32 * 9 * 9, CLASSES),
    )  # fmt: skip


def residual_unit(inputs: int, outputs: int, stride: int) -> nn.Module:
    body = nn.Sequential(
        convolution(inputs, outputs, 3, stride), nn.ReLU(), convolution(outputs, outputs)
    )
    skip = None if inputs == outputs else convolution(inputs, outputs, 1, stride)
    return Residual(body, skip, nn.ReLU())


def resnet(width: int = 16) -> nn.Module:
    units = [residual_unit(width, width, 1), residual_unit(width, 2 * width, 2)]
    units += [residual_unit(2 * width, 2 * width, 1), residual_unit(2 * width, 4 * width, 2)]
    return nn.Sequential(convolution(3, width), nn.ReLU(), *units, head(4 * width))


def preactivated() -> nn.Module:
    def body():
        return nn.Sequential(
            nn.BatchNorm2d(16),
            nn.ReLU(),
            convolution(16, 16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, 1, 1),
        )

    return nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), Residual(body()), Residual(body()), head(16))


def inverted(inputs: int, outputs: int, stride: int, activation, excite=None, size: int = 3):
    """MobileNet's block: wide, depthwise, narrow."""
    wide = 3 * inputs
    layers = [convolution(inputs, wide, 1), activation()]
    layers += [convolution(wide, wide, size, stride, groups=wide), activation()]
    layers += [] if excite is None else [excite(wide)]
    body = nn.Sequential(*layers, convolution(wide, outputs, 1))
    return Residual(body) if inputs == outputs and stride == 1 else body


def mobilenet_v2() -> nn.Module:
    return nn.Sequential(
        convolution(3, 16, 3, 2), nn.ReLU6(), inverted(16, 16, 1, nn.ReLU6),
        inverted(16, 24, 2, nn.ReLU6), inverted(24, 24, 1, nn.ReLU6), nn.Dropout(0.2), head(24),
    )  # fmt: skip


def mobilenet_v3() -> nn.Module:
    def excite(channels: int) -> nn.Module:
        return SqueezeExcite(channels, nn.Hardsigmoid(), nn.ReLU())

    return nn.Sequential(
        convolution(3, 16, 3, 2), nn.Hardswish(), inverted(16, 16, 1, nn.ReLU, excite),
        inverted(16, 24, 2, nn.Hardswish, excite, 5), inverted(24, 24, 1, nn.Hardswish), head(24),
    )  # fmt: skip


def efficientnet() -> nn.Module:
    def excite(channels: int) -> nn.Module:
        return SqueezeExcite(channels, nn.Sigmoid(), nn.SiLU())

    return nn.Sequential(
        convolution(3, 16, 3, 2), nn.SiLU(), inverted(16, 16, 1, nn.SiLU, excite),
        inverted(16, 24, 2, nn.SiLU, excite, 5), inverted(24, 24, 1, nn.SiLU, excite), head(24),
    )  # fmt: skip


def densenet() -> nn.Module:
    def layer(inputs: int) -> nn.Module:
        body = nn.Sequential(
            nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, 16, 1, bias=False),
            nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3, 1, 1, bias=False),
        )  # fmt: skip
        return Branches(nn.Identity(), body)

    return nn.Sequential(
        convolution(3, 16), nn.ReLU(), layer(16), layer(24), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 16, 1), nn.AvgPool2d(2), layer(16), layer(24), nn.BatchNorm2d(32), nn.ReLU(),
        head(32),
    )  # fmt: skip


def inception() -> nn.Module:
    def block(inputs: int) -> nn.Module:
        return Branches(
            nn.Sequential(convolution(inputs, 8, 1), nn.ReLU()),
            nn.Sequential(convolution(inputs, 8, 1), nn.ReLU(), convolution(8, 12), nn.ReLU()),
            nn.Sequential(
                nn.Conv2d(inputs, 8, (1, 7), padding=(0, 3)),
                nn.Conv2d(8, 8, (7, 1), padding=(3, 0)),
            ),
            nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(inputs, 4, 1)),
            nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False), nn.Conv2d(inputs, 4, 1)),
        )

    return nn.Sequential(
        convolution(3, 16, 3, 2), nn.ReLU(), nn.LocalResponseNorm(5), block(16),
        nn.MaxPool2d(3, 2, ceil_mode=True), block(36), head(36),
    )  # fmt: skip


def squeezenet() -> nn.Module:
    def fire(inputs: int, squeeze: int, expand: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(inputs, squeeze, 1),
            nn.ReLU(),
            Branches(
                nn.Sequential(nn.Conv2d(squeeze, expand, 1), nn.ReLU()),
                nn.Sequential(nn.Conv2d(squeeze, expand, 3, 1, 1), nn.ReLU()),
            ),
        )

    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), fire(16, 8, 16),
        fire(32, 8, 16), nn.Conv2d(32, CLASSES, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )  # fmt: skip


def shufflenet() -> nn.Module:
    return nn.Sequential(
        convolution(3, 16, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1), ShuffleUnit(16),
        ShuffleUnit(16), nn.Conv2d(16, 24, 1, groups=4), Shuffle(4), head(24),
    )  # fmt: skip


def mixer() -> nn.Module:
    def block() -> nn.Module:
        tokens = Turned(nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)))
        channels = nn.Sequential(nn.Linear(24, 48), nn.GELU(), nn.Linear(48, 24))
        return nn.Sequential(
            Residual(nn.Sequential(nn.LayerNorm(24), tokens)),
            Residual(nn.Sequential(nn.LayerNorm(24), channels)),
        )

    return nn.Sequential(
        Patches(24, 8), block(), block(), nn.LayerNorm(24), Mean(), nn.Linear(24, CLASSES)
    )


def groupnorm() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.GroupNorm(4, 16), nn.Mish(), nn.Conv2d(16, 16, 3, 1, 2, 2),
        nn.InstanceNorm2d(16, affine=True), nn.ELU(), nn.ConvTranspose2d(16, 8, 4, 2, 1),
        nn.PReLU(8), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES),
    )  # fmt: skip


def from_transformers(kind: str, **config: object) -> Callable[[], nn.Module]:
    """A `transformers` classifier of this configuration, with random weights."""

    def make() -> nn.Module:
        import transformers

        settings = getattr(transformers, f"{kind}Config")(num_labels=CLASSES, **config)
        return Hidden(getattr(transformers, f"{kind}ForImageClassification")(settings))

    return make


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SMALL |= {"intermediate_size": 64, "image_size": 32, "patch_size": 8}
STAGES = {"depths": [1, 1], "hidden_sizes": [16, 32]}

# name -> how to make it, the shape of one sample
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (mlp, (3, 16, 16)),
    "cnn": (cnn, (3, 33, 33)),
    "resnet": (resnet, (3, 32, 32)),
    "resnet_preact": (preactivated, (3, 24, 24)),
    "mobilenet_v2": (mobilenet_v2, (3, 32, 32)),
    "mobilenet_v3": (mobilenet_v3, (3, 32, 32)),
    "efficientnet": (efficientnet, (3, 32, 32)),
    "densenet": (densenet, (3, 24, 24)),
    "inception": (inception, (3, 32, 32)),
    "squeezenet": (squeezenet, (3, 32, 32)),
    "shufflenet": (shufflenet, (3, 32, 32)),
    "mixer": (mixer, (3, 32, 32)),
    "groupnorm": (groupnorm, (3, 32, 32)),
    "vit": (Encoder, (3, 32, 32)),
    "lstm": (lambda: Recurrent(nn.LSTM, False, 1), (9, 12)),
    "lstm_bi2": (lambda: Recurrent(nn.LSTM, True, 2), (9, 12)),
    "gru": (lambda: Recurrent(nn.GRU, False, 1), (9, 12)),
    "gru_bi2": (lambda: Recurrent(nn.GRU, True, 2), (9, 12)),
    "hf_vit": (from_transformers("ViT", **SMALL), (3, 32, 32)),
    "hf_deit": (from_transformers("DeiT", **SMALL), (3, 32, 32)),
    "hf_dinov2": (from_transformers("Dinov2", **SMALL), (3, 32, 32)),
    "hf_beit": (
        from_transformers("Beit", use_relative_position_bias=True, **SMALL),
        (3, 32, 32),
    ),
    "hf_swin": (
        from_transformers(
            "Swin", image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4],
            window_size=4,
        ),
        (3, 32, 32),
    ),
    "hf_swinv2": (
        from_transformers(
            "Swinv2", image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4],
            window_size=4,
        ),
        (3, 32, 32),
    ),
    "hf_convnext": (
        from_transformers("ConvNext", layer_scale_init_value=0.5, num_stages=2, **STAGES),
        (3, 32, 32),
    ),
    "hf_convnextv2": (from_transformers("ConvNextV2", num_stages=2, **STAGES), (3, 32, 32)),
    "hf_resnet": (
        from_transformers("ResNet", embedding_size=16, layer_type="bottleneck", **STAGES),
        (3, 32, 32),
    ),
    "hf_regnet": (
        from_transformers(
            "RegNet", embedding_size=16, groups_width=8, layer_type="y", hidden_sizes=[16, 32],
            depths=[1, 1],
        ),
        (3, 32, 32),
    ),
    "hf_mobilenet_v2": (
        from_transformers("MobileNetV2", depth_multiplier=0.35, image_size=32),
        (3, 32, 32),
    ),
    "hf_efficientnet": (
        from_transformers(
            "EfficientNet", image_size=32, width_coefficient=0.5, depth_coefficient=0.3,
            hidden_dim=640,
        ),
        (3, 32, 32),
    ),
    "hf_poolformer": (
        from_transformers(
            "PoolFormer", depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32],
            layer_scale_init_value=0.5,
        ),
        (3, 32, 32),
    ),
    "hf_pvt": (
        from_transformers(
            "Pvt", image_size=32, depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32],
            num_attention_heads=[1, 2, 2, 4], mlp_ratios=[2, 2, 2, 2],
            sequence_reduction_ratios=[2, 2, 1, 1],
        ),
        (3, 32, 32),
    ),
}  # fmt: skip


class Normalised(nn.Module):
    """Mean and standard deviation inside the served file."""

    def __init__(self, core: nn.Module):
        super().__init__()
        self.core = core
        self.register_buffer("mean", torch.tensor([0.49, 0.48, 0.45])[:, None, None])
        self.register_buffer("std", torch.tensor([0.25, 0.24, 0.26])[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """The body on standardised pixels."""
        return self.core((x - self.mean) / self.std)


class ChannelsBehind(Normalised):
    """Images as (B, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """Turned, then as usual."""
        return super().forward(x.permute(0, 3, 1, 2))


class Bytes(Normalised):
    """Images of 0 to 255 in bytes."""

    def forward(self, x: Tensor) -> Tensor:
        """Cast, then as usual."""
        return super().forward(x.to(torch.float32) / 255)


class BytesBehind(Normalised):
    """Images of bytes as (B, H, W, C), as cameras and PNG decoders give them."""

    def forward(self, x: Tensor) -> Tensor:
        """Turned, cast, then as usual."""
        return super().forward(x.permute(0, 3, 1, 2).to(torch.float32) / 255)


class Resized(nn.Module):
    """Images resized inside the served file."""

    def __init__(self, core: nn.Module, mode: str):
        super().__init__()
        self.core = core
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        """From any size to 32 x 32."""
        corners = {} if self.mode == "nearest" else {"align_corners": False}
        return self.core(F.interpolate(x, size=(32, 32), mode=self.mode, **corners))


class Clipped(nn.Module):
    """Pixels clipped to the box inside the served file."""

    def __init__(self, core: nn.Module):
        super().__init__()
        self.core = core

    def forward(self, x: Tensor) -> Tensor:
        """The body on pixels of 0 to 1."""
        return self.core(x.clamp(0.0, 1.0))


class Labels(nn.Module):
    """Labels in place of scores."""

    def __init__(self, core: nn.Module):
        super().__init__()
        self.core = core

    def forward(self, x: Tensor) -> Tensor:
        """The top class."""
        return self.core(x).argmax(1)


def binary(core: nn.Module) -> nn.Module:
    return nn.Sequential(core, nn.Linear(CLASSES, 1), nn.Sigmoid())


# name -> wrapper of a network, the network, the sample's shape, whether it takes bytes
VARIANTS: dict[str, tuple[Callable[[nn.Module], nn.Module], str, tuple[int, ...], bool]] = {
    "softmax": (lambda core: nn.Sequential(core, nn.Softmax(1)), "resnet", (3, 32, 32), False),
    "softmax_vit": (lambda core: nn.Sequential(core, nn.Softmax(-1)), "vit", (3, 32, 32), False),
    "log_softmax": (lambda core: nn.Sequential(core, nn.LogSoftmax(1)), "cnn", (3, 33, 33), False),
    "argmax": (Labels, "resnet", (3, 32, 32), False),
    "argmax_softmax": (
        lambda core: Labels(nn.Sequential(core, nn.Softmax(1))), "cnn", (3, 33, 33), False,
    ),
    "sigmoid": (binary, "resnet", (3, 32, 32), False),
    "normalised": (Normalised, "resnet", (3, 32, 32), False),
    "nhwc": (ChannelsBehind, "resnet", (32, 32, 3), False),
    "nhwc_mobilenet": (ChannelsBehind, "mobilenet_v3", (32, 32, 3), False),
    "uint8": (Bytes, "resnet", (3, 32, 32), True),
    "uint8_nhwc": (BytesBehind, "efficientnet", (32, 32, 3), True),
    "resize_bilinear": (lambda core: Resized(core, "bilinear"), "resnet", (3, 20, 27), False),
    "resize_nearest": (lambda core: Resized(core, "nearest"), "resnet", (3, 20, 27), False),
    "resize_bicubic": (lambda core: Resized(core, "bicubic"), "vit", (3, 20, 27), False),
    "clipped": (Clipped, "cnn", (3, 33, 33), False),
}  # fmt: skip


def prepared(module: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """In evaluation mode, with statistics and scales that a trained network could have."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.5, 2.0)
            part.weight.data.uniform_(0.5, 1.5)
            part.bias.data.normal_(0, 0.2)
    for parameter in module.parameters():
        if not parameter.any():  # a zero-initialised layer would hide what is behind it
            parameter.data.normal_(0, 0.05)
    module.eval().requires_grad_(False)
    if isinstance(module, Hidden):  # deep ones: without their own statistics the signal dies
        settle(module, torch.rand(8, *shape))
    return module


def settle(module: nn.Module, x: Tensor) -> None:
    """Give every batch norm the statistics of these inputs, as training would."""
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    momenta = [part.momentum for part in norms]
    for part in norms:
        part.momentum = 1.0
        part.train()
    with torch.no_grad():
        module(x)
    for part, momentum in zip(norms, momenta, strict=True):
        part.momentum = momentum
        part.eval()
        part.running_var.clamp_(min=1e-3)
