"""PaSST trained end to end on waveforms, as a scikit-learn estimator."""

from __future__ import annotations

import contextlib
import io as _io
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from .compat import ensure
from .errors import HacError, first_few
from .finetune import train
from .fitting import at_least, class_codes, private_torch, softmax, targets

_BANDS = 128  # mel bands, as all published PaSST models
_PATCH = 16  # bands and frames per patch; patches do not overlap


class PasstClassifier(ClassifierMixin, BaseEstimator):
    """A small PaSST, hear21passt's model and mel front end, trained from scratch.

    128 mel bands, 25 ms windows every 20 ms. In training the band edges are jittered, bands and frames
    masked, and rows and columns of patches left out (structured patchout). The power spectrograms of all
    training clips stay in memory: 0.8 times the size of the waveforms.

    Parameters
    ----------
    sample_rate : int, Hz
    seconds : float
        Length of every clip.
    embed_dim, depth, heads : int
        Size of the transformer.
    patchout_f, patchout_t : int
        Rows (of 8) and columns (one per 0.32 s) of patches left out, drawn anew for each batch.
    mixup : float, >= 0
        Parameter of the Beta distribution by which pairs of log spectrograms are mixed; 0 mixes nothing.
    classes : sequence of str, optional
        The BST codes to tell apart, default all 23.

    Attributes
    ----------
    classes_ : array of str, shape (k,), sorted
    history_ : list of dict
        ``epoch``, ``loss``, ``val_hF`` (a fraction, None without validation clips).
    source_ : str
        In words, where the weights come from.
    n_parameters_ : int

    References
    ----------
    Koutini et al. 2022, "Efficient Training of Audio Transformers with Patchout".
    """

    def __init__(
        self,
        sample_rate: int = 32000,
        seconds: float = 2.0,
        embed_dim: int = 96,
        depth: int = 3,
        heads: int = 3,
        epochs: int = 6,
        batch_size: int = 16,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        patchout_f: int = 2,
        patchout_t: int = 2,
        mixup: float = 0.0,
        label_smoothing: float = 0.1,
        seed: int = 0,
        threads: int = 1,
        classes: Sequence[str] | None = None,
    ) -> None:
        self.sample_rate = sample_rate
        self.seconds = seconds
        self.embed_dim = embed_dim
        self.depth = depth
        self.heads = heads
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.patchout_f = patchout_f
        self.patchout_t = patchout_t
        self.mixup = mixup
        self.label_smoothing = label_smoothing
        self.seed = seed
        self.threads = threads
        self.classes = classes

    def fit(self, waves: np.ndarray, y: Sequence[str], val: tuple | None = None) -> PasstClassifier:
        """Train on waveforms (n, sample_rate * seconds) in [-1, 1] and their codes.

        With ``val=(waves, y)`` the epoch of the best validation hF is kept.
        """
        at_least(self, 1, ["embed_dim", "depth", "heads", "epochs", "batch_size", "threads"])
        at_least(self, 0, ["lr", "weight_decay", "patchout_f", "patchout_t", "mixup", "label_smoothing"])
        at_least(self, 0, ["seed"])
        at_least(self, 8000, ["sample_rate"])
        at_least(self, 0.01, ["seconds"])
        waves = self._checked(waves, "waves")
        self.classes_ = class_codes(self.classes)
        target = targets(y, self.classes_, len(waves))
        val_waves, val_y = None, None
        if val is not None:
            val_waves = self._checked(val[0], "val waves")
            val_y = self.classes_[targets(val[1], self.classes_, len(val_waves), "val y")]
        ensure()
        import torch

        with private_torch(self.seed, self.threads):
            self._build()
            power, truth = self._power(waves), torch.tensor(target)
            val_mel = None if val is None else self._mel(val_waves)

            def loss_of(rows: np.ndarray) -> Any:
                self.front_.train()
                mel = self.front_.bands(power[torch.from_numpy(rows)])
                goal = torch.nn.functional.one_hot(truth[rows], len(self.classes_)).float()
                if self.mixup > 0:
                    share = torch.distributions.Beta(self.mixup, self.mixup).sample((len(rows),))
                    other = torch.randperm(len(rows))
                    mel = share[:, None, None] * mel + (1 - share[:, None, None]) * mel[other]
                    goal = share[:, None] * goal + (1 - share[:, None]) * goal[other]
                logits = self.model_(mel.unsqueeze(1))[0]
                return torch.nn.functional.cross_entropy(logits, goal, label_smoothing=self.label_smoothing)

            generator = torch.Generator().manual_seed(int(self.seed))
            orders = [torch.randperm(len(waves), generator=generator).numpy() for _ in range(self.epochs)]
            size = self.batch_size
            self.history_ = train(
                self.model_,
                name="PaSST",
                batches=[[o[i : i + size] for i in range(0, len(o), size)] for o in orders],
                loss_of=loss_of,
                logits_of=lambda: self._logits(val_mel),
                val_y=val_y,
                classes=self.classes_,
                lr=self.lr,
                weight_decay=self.weight_decay,
                warmup=0.1,
            )
        return self

    def predict_proba(self, waves: np.ndarray) -> np.ndarray:
        """Probabilities, float64, shape (n, k), columns as ``classes_``; rows sum to 1."""
        check_is_fitted(self, "history_")
        waves = self._checked(waves, "waves")
        with private_torch(self.seed, self.threads):
            return softmax(self._logits(self._mel(waves)))

    def predict(self, waves: np.ndarray) -> np.ndarray:
        """Most probable code of each clip, shape (n,)."""
        return self.classes_[self.predict_proba(waves).argmax(axis=1)]

    def _samples(self) -> int:
        return round(self.sample_rate * self.seconds)

    def _checked(self, waves: np.ndarray, where: str) -> np.ndarray:
        waves = np.asarray(waves)
        wanted = self._samples()
        if waves.ndim != 2 or waves.shape[1] != wanted or len(waves) == 0 or waves.dtype.kind != "f":
            what = f"waveforms of shape {waves.shape}, {waves.dtype}"
            fix = f"give floats of shape (n, {wanted}), n > 0: {self.seconds:g} s at {self.sample_rate} Hz"
            raise HacError(what, where, fix)
        bad = [i for i, wave in enumerate(waves) if not np.isfinite(wave).all()]
        if bad:
            what = f"clips with NaN or infinite samples: rows {first_few(bad)}"
            raise HacError(what, where, "repair or drop them")
        return waves

    def _build(self) -> None:
        from hear21passt.models import passt

        front = _front(self.sample_rate, self._samples())
        grid = _BANDS // _PATCH, front.frames // _PATCH
        where = "PasstClassifier"
        if grid[1] == 0:
            what = f"seconds={self.seconds:g} gives {front.frames} frames, and a patch has {_PATCH}"
            raise HacError(what, where, "use clips of at least 0.32 s")
        for name, size in (("patchout_f", grid[0]), ("patchout_t", grid[1])):
            if getattr(self, name) >= size:
                what = f"{name}={getattr(self, name)}, but there are {size} patches"
                raise HacError(what, where, f"set {name} to {size - 1} or less")
        if self.embed_dim % self.heads:
            what = f"embed_dim={self.embed_dim} is not a multiple of heads={self.heads}"
            raise HacError(what, where, "choose heads that divide embed_dim")
        passt.first_RUN = False  # else it prints every shape of its first forward pass
        self.front_ = front
        self.model_ = passt.PaSST(
            s_patchout_f=self.patchout_f,
            s_patchout_t=self.patchout_t,
            img_size=(_BANDS, front.frames),
            patch_size=_PATCH,
            stride=_PATCH,
            num_classes=len(self.classes_),
            embed_dim=self.embed_dim,
            depth=self.depth,
            num_heads=self.heads,
            mlp_ratio=2.0,
        )
        self.n_parameters_ = sum(p.numel() for p in self.model_.parameters())
        size = f"{self.depth} layers, {self.embed_dim}, {self.seconds:g} s"
        self.source_ = f"small PaSST ({size}) trained from scratch on this corpus"

    def _power(self, waves: np.ndarray) -> Any:
        """Power spectrograms, float32, shape (n, bins, frames)."""
        import torch

        out = None
        for start in range(0, len(waves), 16):
            part = self.front_.power(_tensor(waves[start : start + 16]))
            if out is None:
                out = torch.empty((len(waves), *part.shape[1:]))
            out[start : start + 16] = part
        return out

    def _mel(self, waves: np.ndarray) -> Any:
        """Log mel spectrograms without augmentation, float32, shape (n, 128, frames)."""
        import torch

        self.front_.eval()
        chunks = [waves[start : start + 16] for start in range(0, len(waves), 16)]
        return torch.cat([self.front_(_tensor(chunk)) for chunk in chunks])

    def _logits(self, mel: Any) -> np.ndarray:
        import torch

        self.model_.eval()
        with torch.inference_mode():
            return np.concatenate([self.model_(part.unsqueeze(1))[0].numpy() for part in mel.split(32)])


def _tensor(waves: np.ndarray) -> Any:
    """A float32 copy in torch's own, aligned memory: the bytes of the result depend on alignment."""
    import torch

    return torch.tensor(np.ascontiguousarray(waves), dtype=torch.float32)


def _front(sample_rate: int, samples: int) -> Any:
    """hear21passt's AugmentMelSTFT in two steps; the first, not augmented, is done once for all epochs."""
    import torch
    import torchaudio
    from hear21passt.models.preprocess import AugmentMelSTFT

    class MelFront(AugmentMelSTFT):
        def power(self, x: Any) -> Any:
            """Pre-emphasis and power spectrogram: (n, samples) -> (n, bins, frames)."""
            x = x[:, 1:] - 0.97 * x[:, :-1]  # the library's conv1d takes longer than all the rest
            z = torch.stft(x, self.n_fft, self.hopsize, self.win_length, self.window, return_complex=True)
            return z.real.square() + z.imag.square()

        def bands(self, power: Any) -> Any:
            """Log mel bands: (n, bins, frames) -> (n, 128, frames); in train mode jittered and masked."""
            fmin = self.fmin + torch.randint(self.fmin_aug_range, (1,)).item()
            fmax = self.fmax + self.fmax_aug_range // 2 - torch.randint(self.fmax_aug_range, (1,)).item()
            low, high = (fmin, fmax) if self.training else (self.fmin, self.fmax)
            basis, _ = torchaudio.compliance.kaldi.get_mel_banks(
                self.n_mels, self.n_fft, self.sr, low, high, 100.0, -500.0, 1.0
            )
            mel = (torch.nn.functional.pad(basis, (0, 1)) @ power + 0.00001).log()
            if self.training:
                mel = self.timem(self.freqm(mel))
            return (mel + 4.5) / 5.0

        def forward(self, x: Any) -> Any:
            return self.bands(self.power(x))

    hop, jitter = sample_rate // 50, sample_rate // 16
    frames = 1 + (samples - 1) // hop
    with contextlib.redirect_stdout(_io.StringIO()):
        front = MelFront(
            n_mels=_BANDS,
            sr=sample_rate,
            win_length=sample_rate // 40,
            hopsize=hop,
            n_fft=1 << (sample_rate // 40 - 1).bit_length(),
            freqm=24,
            timem=max(1, frames // 5),
            fmin_aug_range=10,
            fmax=sample_rate // 2 - jitter // 2,
            fmax_aug_range=jitter,
        )
    front.frames = frames
    return front
