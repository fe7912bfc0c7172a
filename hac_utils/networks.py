"""The networks of the heads with a leading model axis: parameters in flat buffers, forward and backward by hand.

See :mod:`hac_utils.stacked` for the training around them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

PRECISIONS = ("float32", "bfloat16")
_SMALL_SCALE = 0.05  # below, the gradient of a LayerNorm scale is computed from the inputs' gradient


@dataclass
class Model:
    """One model of a stack.

    Attributes
    ----------
    state : dict name -> float32 tensor, as the network's ``state_dict``; initial weights in, kept weights out
    train, val : row numbers into the shared X; val None keeps the last epoch
    target : int64 (N,), position of every row's class in `classes`; read at `train` and `val` only
    weight : float32 (N,), sample weights
    history, best_epoch : see :class:`hac_utils.heads.MLPHead`
    """

    state: dict[str, Any]
    seed: int
    train: np.ndarray
    val: np.ndarray | None
    target: np.ndarray
    weight: np.ndarray
    history: list[dict] = field(default_factory=list)
    best_epoch: int = 0


@dataclass(frozen=True)
class Recipe:
    """What the models of a stack have in common; see the parameters of :class:`hac_utils.heads.MLPHead`."""

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    dropout: float
    label_smoothing: float
    hierarchical: bool
    precision: str
    patience: int
    device: str


class Network:
    """Parameters, gradients and AdamW moments of K models, each kind in one flat buffer.

    A child lists its parameters (``layout``: name -> shape), fills them from a ``state_dict`` and back
    (``pack``, ``unpack``), and computes ``forward`` and ``backward``. Parameter views are (K, …).
    """

    layout: dict[str, tuple[int, ...]]

    def __init__(self, models: Sequence[Model], batch: int, recipe: Recipe, device: Any) -> None:
        import torch

        self.k, self.batch, self.device, self.recipe = len(models), batch, device, recipe
        sizes = {name: self.k * math.prod(shape) for name, shape in self.layout.items()}
        starts, end = {}, 0
        for name, size in sizes.items():
            starts[name], end = end, end + -(-size // 16) * 16  # every parameter starts on a cache line

        def views(flat):
            return {n: flat[starts[n] : starts[n] + sizes[n]].view(self.k, *s) for n, s in self.layout.items()}

        self.flat, self.grad, self.moment1, self.moment2 = (torch.zeros(end, device=device) for _ in range(4))
        self.p, self.g = views(self.flat), views(self.grad)
        self.low = recipe.precision == "bfloat16"
        self.dtype = torch.bfloat16 if self.low else torch.float32
        self.flat_low = self.flat.to(torch.bfloat16) if self.low else self.flat
        self.grad_low = torch.zeros_like(self.flat_low) if self.low else self.grad
        self.w, self.gw = views(self.flat_low), views(self.grad_low)
        for k, model in enumerate(models):
            for name, value in self.pack(model.state).items():
                self.p[name][k] = value
        if self.low:
            self.flat_low.copy_(self.flat)
        self.names = list(models[0].state)
        self.step = torch.zeros((), device=device)
        self.best = {name: value.clone() for name, value in self.p.items()}
        self.buffers: dict[tuple, Any] = {}
        self.mask = torch.ones(self.k, batch, self.layout["hidden"][0], dtype=self.dtype, device=device)
        self.streams = [np.random.SFC64([m.seed, 1]) for m in models]
        self.generator = torch.Generator(device).manual_seed(models[0].seed) if device.type != "cpu" else None

    def buffer(self, name: str, rows: int, columns: int, dtype: Any = None) -> Any:
        import torch

        key = (name, rows, columns)
        if key not in self.buffers:
            self.buffers[key] = torch.empty(self.k, rows, columns, dtype=dtype or self.dtype, device=self.device)
        return self.buffers[key]

    def inputs(self, x: Any, rows: Any) -> tuple[Any, Any]:
        """Standardised rows (K, b, d), float32, and the same with the models' scale and shift."""
        import torch

        d, b = x.shape[1], rows.shape[1]
        plain = self.buffer("plain", b, d, torch.float32)
        torch.index_select(x, 0, rows.reshape(-1), out=plain.view(-1, d))
        scaled = self.buffer("scaled", b, d)
        torch.addcmul(self.p["shift"], plain, self.p["scale"], out=scaled)
        return plain, scaled

    def draw_mask(self) -> None:
        """New dropout mask: 0 with probability `dropout` (to 1/65,536), else 1 / (1 - dropout)."""
        import torch

        rate = self.recipe.dropout
        if rate == 0:
            return
        if self.generator is not None:
            keep = torch.rand(self.mask.shape, generator=self.generator, device=self.device) >= rate
            torch.mul(keep, 1 / (1 - rate), out=self.mask)
            return
        size = self.mask[0].numel()
        threshold = np.uint16(min(round(rate * 65536), 65535))
        kept = torch.tensor(65536 / (65536 - int(threshold)), dtype=self.dtype)
        if self.low:  # NumPy knows no bfloat16: write the bits
            mask, kept = self.mask.view(torch.int16).numpy(), kept.view(torch.int16).numpy()
        else:
            mask, kept = self.mask.numpy(), kept.numpy()
        for k, stream in enumerate(self.streams):
            words = stream.random_raw(-(-size // 4)).view(np.uint16)[:size]
            np.multiply((words >= threshold).reshape(mask[k].shape), kept, out=mask[k])

    def head(self, hidden: Any, b: int) -> Any:
        """GELU, dropout (`training` masks are applied by the caller), last layer: float32 logits (K, b, c)."""
        c = self.layout["out"][0]
        logits = _product(hidden, self.w["out"].mT, self.buffer("logits", b, c), self.w["out_bias"])
        return logits.float() if self.low else logits

    def scale_gradients(self, plain: Any, column_dot: Any, d_shift: Any, d_inputs: Any) -> None:
        """Gradients of LayerNorm's scale and shift without the inputs' gradient.

        With x = scale·x̂ + shift and y = W x, summing W ∘ dW over the rows of W gives scale·dscale +
        shift·dshift for every column, and dshift = Wᵀ Σ dy.
        """
        import torch

        self.g["shift"].copy_(d_shift)
        scale = self.p["scale"]
        if float(scale.abs().min()) > _SMALL_SCALE:
            self.g["scale"].copy_(column_dot.addcmul_(self.p["shift"], d_shift, value=-1).div_(scale))
        else:
            torch.sum(d_inputs() * plain, 1, keepdim=True, out=self.g["scale"])

    def update(self, lr: float) -> None:
        import torch

        self.step += 1
        torch._fused_adamw_(
            [self.flat],
            [self.grad],
            [self.moment1],
            [self.moment2],
            [],
            [self.step],
            lr=lr,
            beta1=0.9,
            beta2=0.999,
            weight_decay=self.recipe.weight_decay,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )
        if self.low:
            self.flat_low.copy_(self.flat)

    def keep(self, k: int) -> None:
        """Remember the present weights of model k."""
        for name, value in self.p.items():
            self.best[name][k].copy_(value[k])

    def kept(self, k: int) -> dict[str, Any]:
        state = self.unpack({name: value[k].cpu() for name, value in self.best.items()})
        return {name: state[name].clone() for name in self.names}


def _product(a: Any, b: Any, out: Any, bias: Any = None) -> Any:
    """a @ b (+ bias) for every model; one model takes the plain product, which never copies a part of a matrix."""
    import torch

    if len(out) > 1:
        return torch.bmm(a, b, out=out) if bias is None else torch.baddbmm(bias, a, b, out=out)
    if bias is None:
        torch.mm(a[0], b[0], out=out[0])
    else:
        torch.addmm(bias[0], a[0], b[0], out=out[0])
    return out


def _column_dot(a: Any, b: Any) -> Any:
    """Σ over rows of a ∘ b for matrices (K, r, d): (K, 1, d)."""
    import torch

    if a.device.type == "cpu":
        out = torch.empty(a.shape[0], 1, a.shape[2])
        for k in range(len(a)):
            np.einsum("kj,kj->j", a[k].numpy(), b[k].numpy(), out=out[k, 0].numpy())
        return out
    return (a * b).sum(1, keepdim=True)


class Mlp(Network):
    """LayerNorm → hidden → GELU → dropout → out."""

    _KEYS = {
        "scale": "0.weight",
        "shift": "0.bias",
        "hidden": "1.weight",
        "hidden_bias": "1.bias",
        "out": "4.weight",
        "out_bias": "4.bias",
    }

    def __init__(self, models, batch, parts, n_classes, recipe, device):
        h, d = models[0].state["1.weight"].shape
        self.layout = {
            "hidden": (h, d),
            "out": (n_classes, h),
            "hidden_bias": (1, h),
            "scale": (1, d),
            "shift": (1, d),
            "out_bias": (1, n_classes),
        }
        super().__init__(models, batch, recipe, device)

    def pack(self, state):
        return {name: state[key].reshape(self.layout[name]) for name, key in self._KEYS.items()}

    def unpack(self, values):
        return {k: values[n].squeeze(0) if values[n].shape[0] == 1 else values[n] for n, k in self._KEYS.items()}

    def forward(self, x, rows, training):
        import torch

        b, h = rows.shape[1], self.layout["hidden"][0]
        self.plain, self.x = self.inputs(x, rows)
        self.z = _product(self.x, self.w["hidden"].mT, self.buffer("z", b, h), self.w["hidden_bias"])
        self.e = torch.ops.aten.gelu.out(self.z, out=self.buffer("e", b, h))
        if training:
            self.draw_mask()
            self.e.mul_(self.mask)
        return self.head(self.e, b)

    def backward(self, d_logits):
        import torch

        w, gw, b, h = self.w, self.gw, self.batch, self.layout["hidden"][0]
        if self.low:
            d_logits = d_logits.to(self.dtype)
        _product(d_logits.mT, self.e, gw["out"])
        torch.sum(d_logits, 1, keepdim=True, out=gw["out_bias"])
        de = _product(d_logits, w["out"], self.buffer("de", b, h)).mul_(self.mask)
        dz = torch.ops.aten.gelu_backward.grad_input(de, self.z, grad_input=self.buffer("dz", b, h))
        _product(dz.mT, self.x, gw["hidden"])
        torch.sum(dz, 1, keepdim=True, out=gw["hidden_bias"])
        if self.low:
            self.grad.copy_(self.grad_low)
        self.scale_gradients(
            self.plain,
            _column_dot(self.p["hidden"], self.g["hidden"]),
            torch.bmm(self.g["hidden_bias"], self.p["hidden"]),
            lambda: torch.bmm(dz, w["hidden"]).float(),
        )


class Gated(Network):
    """Gated fusion (report, Eq. 1). ``hidden`` holds the gate's first layer above [W_a | W_t]: (2h, d)."""

    def __init__(self, models, batch, parts, n_classes, recipe, device):
        self.a, d = parts[0], sum(parts)
        self.h = h = models[0].state["gate.2.weight"].shape[0]
        self.layout = {
            "both": (2 * h, d),
            "hidden": (h, h),
            "out": (n_classes, h),
            "gate_bias": (1, h),
            "hidden_bias": (1, h),
            "audio_bias": (1, h),
            "text_bias": (1, h),
            "scale": (1, d),
            "shift": (1, d),
            "out_bias": (1, n_classes),
        }
        super().__init__(models, batch, recipe, device)

    def pack(self, state):
        import torch

        mix = torch.cat([state["audio.weight"], state["text.weight"]], 1)
        values = {
            "both": torch.cat([state["gate.0.weight"], mix], 0),
            "hidden": state["gate.2.weight"],
            "out": state["out.2.weight"],
            "gate_bias": state["gate.0.bias"],
            "hidden_bias": state["gate.2.bias"],
            "audio_bias": state["audio.bias"],
            "text_bias": state["text.bias"],
            "scale": torch.cat([state["norm_a.weight"], state["norm_t.weight"]]),
            "shift": torch.cat([state["norm_a.bias"], state["norm_t.bias"]]),
            "out_bias": state["out.2.bias"],
        }
        return {name: value.reshape(self.layout[name]) for name, value in values.items()}

    def unpack(self, values):
        a, h = self.a, self.h
        both = values["both"]
        return {
            "norm_a.weight": values["scale"][0, :a],
            "norm_a.bias": values["shift"][0, :a],
            "norm_t.weight": values["scale"][0, a:],
            "norm_t.bias": values["shift"][0, a:],
            "gate.0.weight": both[:h],
            "gate.0.bias": values["gate_bias"][0],
            "gate.2.weight": values["hidden"],
            "gate.2.bias": values["hidden_bias"][0],
            "audio.weight": both[h:, :a],
            "audio.bias": values["audio_bias"][0],
            "text.weight": both[h:, a:],
            "text.bias": values["text_bias"][0],
            "out.2.weight": values["out"],
            "out.2.bias": values["out_bias"][0],
        }

    def forward(self, x, rows, training):
        import torch

        b, h, a, w = rows.shape[1], self.h, self.a, self.w
        gelu = torch.ops.aten.gelu.out
        both = w["both"]

        def new(name):
            return self.buffer(name, b, h)

        self.plain, self.x = self.inputs(x, rows)
        self.u = _product(self.x, both[:, :h].mT, new("u"), w["gate_bias"])
        self.v = gelu(self.u, out=new("v"))
        gate = _product(self.v, w["hidden"].mT, new("gate"), w["hidden_bias"])
        self.gate = torch.sigmoid(gate, out=gate)
        audio = _product(self.x[:, :, :a], both[:, h:, :a].mT, new("audio"), w["audio_bias"])
        text = _product(self.x[:, :, a:], both[:, h:, a:].mT, new("text"), w["text_bias"])
        self.apart = audio.sub_(text)
        self.z = torch.addcmul(text, self.gate, self.apart, out=text)
        self.e = gelu(self.z, out=new("e"))
        if training:
            self.draw_mask()
            self.e.mul_(self.mask)
        return self.head(self.e, b)

    def backward(self, d_logits):
        import torch

        h, a, w, gw = self.h, self.a, self.w, self.gw
        gelu_backward = torch.ops.aten.gelu_backward.grad_input

        def new(name):
            return self.buffer(name, self.batch, h)

        if self.low:
            d_logits = d_logits.to(self.dtype)
        _product(d_logits.mT, self.e, gw["out"])
        torch.sum(d_logits, 1, keepdim=True, out=gw["out_bias"])
        de = _product(d_logits, w["out"], new("de")).mul_(self.mask)
        dz = gelu_backward(de, self.z, grad_input=new("dz"))
        d_gate = torch.mul(dz, self.apart, out=self.apart)
        dr = torch.ops.aten.sigmoid_backward.grad_input(d_gate, self.gate, grad_input=de)
        d_audio = torch.mul(dz, self.gate, out=self.gate)
        d_text = dz.sub_(d_audio)
        _product(dr.mT, self.v, gw["hidden"])
        torch.sum(dr, 1, keepdim=True, out=gw["hidden_bias"])
        dv = _product(dr, w["hidden"], new("dv"))
        du = gelu_backward(dv, self.u, grad_input=new("du"))
        both, g_both = w["both"], gw["both"]
        _product(du.mT, self.x, g_both[:, :h])
        _product(d_audio.mT, self.x[:, :, :a], g_both[:, h:, :a])
        _product(d_text.mT, self.x[:, :, a:], g_both[:, h:, a:])
        for name, value in (("gate_bias", du), ("audio_bias", d_audio), ("text_bias", d_text)):
            torch.sum(value, 1, keepdim=True, out=gw[name])
        if self.low:
            self.grad.copy_(self.grad_low)
        p, g = self.p, self.g
        d_shift = torch.bmm(g["gate_bias"], p["both"][:, :h])
        d_shift[:, :, :a] += torch.bmm(g["audio_bias"], p["both"][:, h:, :a])
        d_shift[:, :, a:] += torch.bmm(g["text_bias"], p["both"][:, h:, a:])

        def d_inputs():
            dx = torch.bmm(du, both[:, :h])
            dx[:, :, :a] += torch.bmm(d_audio, both[:, h:, :a])
            dx[:, :, a:] += torch.bmm(d_text, both[:, h:, a:])
            return dx.float()

        self.scale_gradients(self.plain, _column_dot(p["both"], g["both"]), d_shift, d_inputs)
