"""PaSST embeddings and AudioSet logits, with hear21passt's model and mel front end."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io as _io
import pickle
import warnings
import zipfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np

from . import weights as published
from .compat import ensure
from .encoders import Travels, torch_device, torch_threads, unit_rows
from .errors import HacError

SAMPLE_RATE = 32_000
WINDOW = 10 * SAMPLE_RATE
HOP = 5 * SAMPLE_RATE // 2

#: A patch has 16 frames of 10 ms; shorter clips are zero-padded to this many samples (0.16 s).
SHORTEST = 5_120

ARCHITECTURE = "passt_s_swa_p16_128_ap476"
CHECKPOINT = "passt-s-f128-p16-s10-ap.476-swa.pt"

_TOGETHER = 8  # windows of a long clip that a GPU gets at once


def windows(audio: np.ndarray) -> list[np.ndarray]:
    """The stretches of a clip that the model sees, each float32 of at most 10 s.

    One for a clip of up to 10 s. Of a longer one, mirrored 5 s beyond both ends, 10 s every 2.5 s.
    """
    audio = np.asarray(audio, dtype=np.float32).reshape(-1)
    if audio.shape[0] <= WINDOW:
        return [np.pad(audio, (0, max(0, SHORTEST - audio.shape[0])))]
    padded = np.pad(audio, WINDOW // 2, mode="reflect")
    return [padded[s : s + WINDOW] for s in range(0, padded.shape[0] - WINDOW + 1, HOP)]


class PasstEncoder(Travels):
    """PaSST embeddings of sounds: 768 values; and logits of the 527 AudioSet classes.

    Parameters
    ----------
    weights : str
        The published checkpoint or one built like it; ``""`` is the published one as fetched by
        ``hac weights get passt``, ``"random"`` an untrained model.
    seed : int
        Of random weights.
    device : str
        ``"cpu"``, ``"cuda"`` or ``"auto"``. A CPU gives the same bytes for a clip in any batch.

    References
    ----------
    Koutini et al. 2022, "Efficient Training of Audio Transformers with Patchout".
    """

    name = "passt"
    dim = 768
    classes = 527
    sample_rate = SAMPLE_RATE
    window = (
        "clips up to 10 s in one pass, those below 0.16 s zero-padded to it; longer ones mirrored by 5 s at "
        "both ends and cut into windows of 10 s every 2.5 s, whose mean is taken"
    )

    def __init__(self, weights: str = "", seed: int = 0, device: str = "cpu") -> None:
        self.weights, self.seed, self.device = str(weights), int(seed), device
        self._file = None
        if self.weights != "random":
            path = Path(weights).expanduser() if weights else published.get("passt", offline=True)
            self._file = path / CHECKPOINT if path.is_dir() else path
            if not self._file.is_file():
                raise HacError("no PaSST weights here", str(self._file), "hac weights get passt")

    def encode(self, batch: Sequence[np.ndarray], ids: Sequence[str] | None = None) -> np.ndarray:
        """Waveforms, each float (n,) at 32 kHz, to unit vectors (len(batch), 768)."""
        return unit_rows(self._both(batch)[:, self.classes :])

    def encode_logits(self, batch: Sequence[np.ndarray], ids: Sequence[str] | None = None) -> np.ndarray:
        """Waveforms to the logits of the AudioSet classes, float32 (len(batch), 527)."""
        return self._both(batch)[:, : self.classes]

    def settings(self) -> dict:
        """What a vector depends on, beside the waveform and (to rounding) the machine."""
        return {
            "encoder": self.name,
            "version": 1,
            "architecture": ARCHITECTURE,
            "sample_rate": self.sample_rate,
            "window": self.window,
            "weights": self._file.name if self._file else "random",
            "weights_sha256": self._weights_sha256,
        } | ({"seed": self.seed} if self._file is None else {})

    def _both(self, batch: Sequence[np.ndarray]) -> np.ndarray:
        """Logits and embeddings, float32 (len(batch), 527 + 768); one clip at a time."""
        import torch

        model, device = self._model, torch_device(self.device)
        step = 1 if device.type == "cpu" else _TOGETHER
        out = np.empty((len(batch), self.classes + self.dim), dtype=np.float32)
        with (
            torch_threads(1 if device.type == "cpu" else 0),
            torch.inference_mode(),
            torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
            torch.random.fork_rng(devices=[]),  # the mel front end draws numbers also where it does not use them
            _quiet(),
        ):
            for row, audio in zip(out, batch, strict=True):
                parts = windows(audio)
                done = [
                    model(torch.tensor(np.stack(parts[s : s + step])).to(device)).cpu()
                    for s in range(0, len(parts), step)
                ]
                row[:] = torch.cat(done).mean(dim=0).numpy()
        return out

    @cached_property
    def _weights_sha256(self) -> str:
        if self._file is not None:
            return published.checked_sha256(self._file)
        digest = hashlib.sha256()
        for name, value in sorted(self._model.net.state_dict().items()):
            digest.update(name.encode() + value.cpu().numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def _model(self) -> Any:
        """hear21passt's PasstBasicWrapper in mode "all"; its own loader would fetch the weights."""
        ensure()
        if importlib.util.find_spec("hear21passt") is None:
            fix = "pip install 'hac-utils[passt]'"
            raise HacError("hear21passt is not installed", "encoder 'passt'", fix)
        import torch

        with _quiet():
            from hear21passt.models import passt
            from hear21passt.models.preprocess import AugmentMelSTFT
            from hear21passt.wrapper import PasstBasicWrapper

            passt.first_RUN = False  # else it prints every shape of its first forward pass
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                net = passt.get_model(arch=ARCHITECTURE, pretrained=False)
            mel = AugmentMelSTFT(
                n_mels=128,
                sr=SAMPLE_RATE,
                win_length=800,
                hopsize=320,
                n_fft=1024,
                freqm=48,
                timem=192,
                fmin=0.0,
                fmax=None,
                fmin_aug_range=10,
                fmax_aug_range=2000,
            )
            if self._file is not None:
                self._fill(net, passt)
            for block in net.blocks:
                block.attn.forward = MethodType(_fused_attention, block.attn)
            model = PasstBasicWrapper(mel=mel, net=net, mode="all")
        return model.eval().requires_grad_(False).to(torch_device(self.device))

    def _fill(self, net: Any, passt: Any) -> None:
        import torch

        self._weights_sha256  # noqa: B018  a file that was tampered with is not opened
        where, fix = str(self._file), "hac weights get passt"
        unreadable = (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError)
        unlike = (KeyError, TypeError, AttributeError)
        try:
            mmap = zipfile.is_zipfile(self._file)
            state = torch.load(self._file, map_location="cpu", weights_only=True, mmap=mmap)
            state = passt.checkpoint_filter_fn(state, net)
        except (*unreadable, *unlike) as e:
            reason = (str(e).strip().splitlines() or [type(e).__name__])[0]
            raise HacError(f"not loaded as a checkpoint of PaSST: {reason}", where, fix) from None
        try:
            missing, unexpected = net.load_state_dict(state, strict=False)
        except RuntimeError as e:
            raise HacError(f"the weights do not fit: {str(e).splitlines()[-1].strip()}", where, fix) from None
        if missing or unexpected:
            first = [*missing, *unexpected][0]
            what = f"{len(missing)} weights missing, {len(unexpected)} unknown; the first: {first}"
            raise HacError(what, where, fix)


def _fused_attention(self: Any, x: Any) -> Any:
    """hear21passt's ``Attention.forward`` by torch's fused kernel: the model takes two thirds of the time."""
    import torch

    n, tokens, width = x.shape
    q, k, v = self.qkv(x).reshape(n, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    x = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=self.scale)
    return self.proj(x.transpose(1, 2).reshape(n, tokens, width))


@contextlib.contextmanager
def _quiet():
    """hear21passt prints the whole model, and warns of clip lengths that it was not trained on."""
    with contextlib.redirect_stdout(_io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
