"""RoBERTa trained end to end on texts, as a scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from .compat import ensure
from .errors import HacError, first_few
from .finetune import train
from .fitting import at_least, class_codes, private_torch, softmax, targets

_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]  # RoBERTa's ids 0 to 4
_FIX = "hac weights get roberta"


class RobertaClassifier(ClassifierMixin, BaseEstimator):
    """RoBERTa with a classification head.

    Parameters
    ----------
    weights : str
        Folder with a pretrained model and its tokenizer; ``""`` trains a small RoBERTa from scratch,
        with a byte-level BPE tokenizer learned from the training texts alone.
    layers, hidden, heads, vocab_size : int
        Size of the small RoBERTa; not used with `weights`.
    max_tokens : int
        Longer texts are cut.
    warmup : float in [0, 1]
        Part of all steps in which the learning rate rises; it falls linearly afterwards.
    balanced : bool
        Weight the loss by inverse class frequency.
    classes : sequence of str, optional
        The BST codes to tell apart, default all 23.

    Attributes
    ----------
    classes_ : array of str, shape (k,), sorted
    history_ : list of dict
        ``epoch``, ``loss``, ``val_hF`` (a fraction, None without validation texts).
    source_ : str
        In words, where the weights come from.
    n_parameters_ : int
    """

    def __init__(
        self,
        weights: str = "",
        layers: int = 2,
        hidden: int = 128,
        heads: int = 4,
        vocab_size: int = 4000,
        max_tokens: int = 64,
        epochs: int = 6,
        batch_size: int = 32,
        lr: float = 5e-4,
        weight_decay: float = 0.01,
        warmup: float = 0.1,
        label_smoothing: float = 0.1,
        balanced: bool = False,
        seed: int = 0,
        threads: int = 1,
        classes: Sequence[str] | None = None,
    ) -> None:
        self.weights = weights
        self.layers = layers
        self.hidden = hidden
        self.heads = heads
        self.vocab_size = vocab_size
        self.max_tokens = max_tokens
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.warmup = warmup
        self.label_smoothing = label_smoothing
        self.balanced = balanced
        self.seed = seed
        self.threads = threads
        self.classes = classes

    def fit(self, texts: Sequence[str], y: Sequence[str], val: tuple | None = None) -> RobertaClassifier:
        """Train on n texts and their codes; ``val=(texts, y)`` keeps the epoch of the best validation hF."""
        at_least(self, 1, ["epochs", "batch_size", "threads", "layers", "hidden", "heads"])
        at_least(self, 3, ["max_tokens"])
        at_least(self, 0, ["lr", "weight_decay", "warmup", "label_smoothing", "seed"])
        texts = _texts(texts, "texts")
        self.classes_ = class_codes(self.classes)
        target = targets(y, self.classes_, len(texts))
        val_texts, val_y = [], None
        if val is not None:
            val_texts = _texts(val[0], "val texts")
            val_y = self.classes_[targets(val[1], self.classes_, len(val_texts), "val y")]
        ensure()
        import torch

        with private_torch(self.seed, self.threads):
            self.tokenizer_, self.model_ = self._load() if self.weights else self._build(texts)
            self.n_parameters_ = sum(p.numel() for p in self.model_.parameters())
            size = f"{self.layers} layers, {self.hidden}"
            self.source_ = str(self.weights) or f"small RoBERTa ({size}) trained from scratch on this corpus"
            tokens, val_tokens, truth = self._encode(texts), self._encode(val_texts), torch.tensor(target)
            weight = self._class_weight(target)

            def loss_of(rows: np.ndarray) -> Any:
                logits = self.model_(**self._pad(tokens, rows)).logits
                return torch.nn.functional.cross_entropy(
                    logits, truth[rows], weight=weight, label_smoothing=self.label_smoothing
                )

            generator = torch.Generator().manual_seed(int(self.seed))
            lengths = np.array([len(t) for t in tokens])
            self.history_ = train(
                self.model_,
                name="RoBERTa",
                batches=[_buckets(lengths, self.batch_size, generator) for _ in range(self.epochs)],
                loss_of=loss_of,
                logits_of=lambda: self._logits(val_tokens),
                val_y=val_y,
                classes=self.classes_,
                lr=self.lr,
                weight_decay=self.weight_decay,
                warmup=self.warmup,
            )
        return self

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """Probabilities, float64, shape (n, k), columns as ``classes_``; rows sum to 1."""
        check_is_fitted(self, "history_")
        texts = _texts(texts, "texts")
        with private_torch(self.seed, self.threads):
            return softmax(self._logits(self._encode(texts)))

    def predict(self, texts: Sequence[str]) -> np.ndarray:
        """Most probable code of each text, shape (n,)."""
        return self.classes_[self.predict_proba(texts).argmax(axis=1)]

    def _build(self, texts: list[str]) -> tuple[Any, Any]:
        from tokenizers import ByteLevelBPETokenizer
        from tokenizers.processors import RobertaProcessing
        from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForSequenceClassification

        if self.hidden % self.heads:
            what = f"hidden={self.hidden} is not a multiple of heads={self.heads}"
            raise HacError(what, "RobertaClassifier", "choose heads that divide hidden")
        smallest = 256 + len(_SPECIAL)
        if self.vocab_size < smallest:
            fix = f"256 bytes and 5 special tokens need at least {smallest}"
            raise HacError(f"vocab_size is {self.vocab_size}", "RobertaClassifier", fix)
        bpe = ByteLevelBPETokenizer(lowercase=True, add_prefix_space=True)
        bpe.train_from_iterator(
            texts, vocab_size=self.vocab_size, min_frequency=2, special_tokens=_SPECIAL, show_progress=False
        )
        bpe._tokenizer.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0))
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=bpe._tokenizer,
            bos_token="<s>",
            cls_token="<s>",
            pad_token="<pad>",
            eos_token="</s>",
            sep_token="</s>",
            unk_token="<unk>",
            mask_token="<mask>",
        )
        config = RobertaConfig(
            vocab_size=len(tokenizer),
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=2 * self.hidden,  # half of the usual, for speed
            attention_probs_dropout_prob=0.0,
            max_position_embeddings=self.max_tokens + 2,  # RoBERTa counts positions from 2
            type_vocab_size=1,
            initializer_range=0.4 / self.hidden**0.5,  # RoBERTa's 0.02 suits width 768; too slow here
            num_labels=len(self.classes_),
            pad_token_id=1,
            bos_token_id=0,
            eos_token_id=2,
        )
        return tokenizer, RobertaForSequenceClassification(config)

    def _load(self) -> tuple[Any, Any]:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        folder = Path(self.weights)
        if not (folder / "config.json").is_file():
            raise HacError("no pretrained RoBERTa here: config.json is missing", folder, _FIX)
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = AutoModelForSequenceClassification.from_pretrained(
                folder, num_labels=len(self.classes_), ignore_mismatched_sizes=True, local_files_only=True
            )
        except Exception as e:  # transformers and safetensors raise unrelated types for broken files
            reason = (str(e).strip() or type(e).__name__).splitlines()[0]
            raise HacError(f"the pretrained RoBERTa cannot be read: {reason}", folder, _FIX) from e
        # Where vocabulary files are missing, transformers makes an empty tokenizer without an error.
        if not set(tokenizer("the sound of rain")["input_ids"]) - set(tokenizer.all_special_ids):
            raise HacError(f"the tokenizer is empty ({len(tokenizer)} tokens)", folder, _FIX)
        if len(tokenizer) > model.config.vocab_size:
            what = f"the tokenizer knows {len(tokenizer)} tokens, the model {model.config.vocab_size}"
            raise HacError(what, folder, _FIX)
        longest = model.config.max_position_embeddings - 2
        if self.max_tokens > longest:
            what = f"max_tokens is {self.max_tokens}, but this model reads {longest}"
            raise HacError(what, folder, f"set max_tokens to {longest} or less")
        return tokenizer, model

    def _class_weight(self, target: np.ndarray) -> Any:
        import torch

        if not self.balanced:
            return None
        counts = np.bincount(target, minlength=len(self.classes_))
        weight = len(target) / (np.count_nonzero(counts) * np.maximum(counts, 1)) * (counts > 0)
        return torch.tensor(weight, dtype=torch.float32)

    def _encode(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        return self.tokenizer_(texts, truncation=True, max_length=self.max_tokens)["input_ids"]

    def _pad(self, tokens: list[list[int]], rows: np.ndarray) -> dict[str, Any]:
        import torch

        chosen = [tokens[r] for r in rows]
        shape = len(chosen), max(map(len, chosen))
        ids = torch.full(shape, self.tokenizer_.pad_token_id, dtype=torch.long)
        mask = torch.zeros(shape, dtype=torch.long)
        for i, row in enumerate(chosen):
            ids[i, : len(row)], mask[i, : len(row)] = torch.tensor(row), 1
        return {"input_ids": ids, "attention_mask": mask}

    def _logits(self, tokens: list[list[int]]) -> np.ndarray:
        import torch

        out = np.empty((len(tokens), len(self.classes_)), dtype=np.float32)
        order = np.argsort([len(t) for t in tokens], kind="stable")
        with torch.inference_mode():
            for start in range(0, len(order), 64):
                rows = order[start : start + 64]
                out[rows] = self.model_(**self._pad(tokens, rows)).logits.numpy()
        return out


def _texts(texts: Sequence[str], where: str) -> list[str]:
    """A list of at least one string; an empty string is a text, NaN and None are not."""
    texts = [texts] if isinstance(texts, (str, bytes)) else list(texts)
    bad = [i for i, t in enumerate(texts) if not isinstance(t, str)]
    if bad:
        what = f"rows that are no text: {first_few(bad)}; row {bad[0]} is {texts[bad[0]]!r}"
        raise HacError(what, where, "fill empty cells with ''")
    if not texts:
        raise HacError("no texts", where, "give at least one")
    return [str(t) for t in texts]


def _buckets(lengths: np.ndarray, batch_size: int, generator: Any) -> list[np.ndarray]:
    """Batches of rows of similar length: shuffle, sort runs of 16 batches by length, cut, shuffle again."""
    import torch

    order = torch.randperm(len(lengths), generator=generator).numpy()
    batches = []
    for start in range(0, len(order), 16 * batch_size):
        run = order[start : start + 16 * batch_size]
        run = run[np.argsort(lengths[run], kind="stable")]
        batches += [run[i : i + batch_size] for i in range(0, len(run), batch_size)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
