"""Sound sources for the synthetic demo corpus: noise, filters, notes, drums and voices.

Every source is a function of a generator, a length `n` in samples and a rate `sr` in Hz, and
returns float samples of shape (n,) in no particular scale.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.signal import fftconvolve, lfilter

Rng = np.random.Generator


# -- building blocks ---------------------------------------------------------------------------


def white(rng: Rng, n: int) -> np.ndarray:
    """White noise, float32, shape (n,)."""
    return rng.standard_normal(n, dtype=np.float32)


def coloured(rng: Rng, n: int, beta: float) -> np.ndarray:
    """Noise with power falling as ``f ** -beta``, RMS 1, shape (n,)."""
    size = next_fast_len(n, real=True)
    spectrum = rfft(white(rng, size))
    spectrum *= np.maximum(np.arange(len(spectrum)), 4.0).astype(np.float32) ** (-beta / 2)
    spectrum[0] = 0
    return unit(irfft(spectrum, size)[:n])


def unit(x: np.ndarray) -> np.ndarray:
    """`x` scaled to RMS 1; silence stays silence."""
    rms = np.sqrt(np.mean(np.square(x, dtype=np.float64)))
    return x / rms if rms > 1e-12 else x


def band(x: np.ndarray, sr: int, low: float, high: float) -> np.ndarray:
    """First-order Butterworth band-pass from `low` to `high` Hz, kept inside the Nyquist range."""
    high = min(high, 0.46 * sr)
    low = min(max(low, 15.0), high / 1.15)
    w1, w2 = np.tan(np.pi * low / sr), np.tan(np.pi * high / sr)
    width, square = w2 - w1, w1 * w2
    return lfilter([width, 0, -width], [1 + width + square, 2 * (square - 1), 1 - width + square], x)


def lowpass(x: np.ndarray, sr: int, cut: float) -> np.ndarray:
    """Second-order Butterworth low-pass at `cut` Hz; nothing happens close to the Nyquist frequency."""
    if cut >= 0.47 * sr:
        return x
    w = np.tan(np.pi * cut / sr)
    return lfilter([w * w, 2 * w * w, w * w], [1 + 2**0.5 * w + w * w, 2 * (w * w - 1), 1 - 2**0.5 * w + w * w], x)


def resonate(x: np.ndarray, sr: int, f: float, width: float) -> np.ndarray:
    """Two-pole resonator at `f` Hz, `width` Hz wide."""
    r = np.exp(-np.pi * width / sr)
    theta = 2 * np.pi * min(f, 0.45 * sr) / sr
    return lfilter([1 - r], [1, -2 * r * np.cos(theta), r * r], x)


def curve(rng: Rng, n: int, sr: int, rate: float) -> np.ndarray:
    """Slow random curve in [0, 1] with `rate` new values a second, shape (n,)."""
    k = max(2, int(np.ceil(n / sr * rate)) + 2)
    return np.interp(np.arange(n) * (rate / sr), np.arange(k), rng.random(k))


def decay(n: int, sr: int, tau: float, attack: float = 0.002) -> np.ndarray:
    """Exponential decay (`tau` s) after a linear attack, shape (n,)."""
    t = np.arange(n) / sr
    return np.minimum(t / attack, 1.0) * np.exp(-t / tau)


def swell(n: int, sr: int, attack: float, release: float) -> np.ndarray:
    """Sustained envelope: rises in `attack` s, falls in the last `release` s."""
    t = np.arange(n) / sr
    return np.minimum(np.minimum(t / attack, (t[-1] - t) / release), 1.0)


def partials(f: np.ndarray | float, n: int, sr: int, amps: np.ndarray) -> np.ndarray:
    """Harmonic tone: ``sum_k amps[k] sin((k + 1) phase)``; partials above Nyquist are left out."""
    f = np.broadcast_to(np.asarray(f, dtype=np.float64), n)
    theta = (2 * np.pi * (np.cumsum(f) / sr % 1)).astype(np.float32)
    top = int(0.47 * sr / max(float(f.max()), 1.0))
    twice_cos, before, now = 2 * np.cos(theta), np.zeros(n, np.float32), np.sin(theta)
    out = np.float32(amps[0]) * now
    for a in amps[1 : max(top, 1)]:  # sin((k + 1) t) = 2 cos(t) sin(k t) - sin((k - 1) t)
        before, now = now, twice_cos * now - before
        if a:
            out += np.float32(a) * now
    return out


def modes(rng: Rng, n: int, sr: int, freqs: np.ndarray, tau: float) -> np.ndarray:
    """Struck object: damped sinusoids at rising `freqs` Hz, higher ones die sooner; shape (n,)."""
    out = np.zeros(n)
    m = min(n, int(6 * tau * sr) + 1)
    tap = np.zeros(m)
    tap[0] = 1
    for f in freqs:
        if f < 0.46 * sr:
            r, theta = np.exp(-((f / freqs[0]) ** 0.5) / (tau * sr)), 2 * np.pi * f / sr
            out[:m] += lfilter([rng.uniform(0.3, 1) * np.sin(theta)], [1, -2 * r * np.cos(theta), r * r], tap)
    return out


def place(out: np.ndarray, grain: np.ndarray, at: float, gain: float = 1.0) -> None:
    """Add `grain` into `out` from sample `at` on; what sticks out is cut."""
    at = int(at)
    m = min(len(grain), len(out) - at)
    if m > 0:
        out[at : at + m] += gain * grain[:m]


def times(rng: Rng, n: int, sr: int, rate: float) -> np.ndarray:
    """Random event positions, about `rate` a second, the first near the start."""
    k = 1 + rng.poisson(rate * n / sr)
    at = np.sort(rng.uniform(0, n, k))
    at[0] = rng.uniform(0, min(0.05 * sr, 0.3 * n))
    return at


def room(rng: Rng, x: np.ndarray, sr: int, seconds: float, wet: float) -> np.ndarray:
    """`x` in a diffuse room of reverberation time `seconds`."""
    m = max(8, int(seconds * sr))
    tail = white(rng, m) * np.exp(-6.9 * np.arange(m, dtype=np.float32) / m)
    return (1 - wet) * unit(x) + wet * unit(fftconvolve(x, tail)[: len(x)])


# -- notes and drums ---------------------------------------------------------------------------


def pluck(rng: Rng, n: int, sr: int, f: float) -> np.ndarray:
    """Karplus–Strong string, one period at a time."""
    period = max(4, int(sr / f))
    loss = 0.5 ** (period / sr / rng.uniform(0.08, 0.5))
    block = lowpass(white(rng, period), sr, rng.uniform(1500, 9000))
    stretch = rng.uniform(0.5, 0.95)
    rows = []
    for _ in range(n // period + 1):
        rows.append(block)
        late = np.concatenate([block[-1:], block[:-1]])
        block = loss * (stretch * block + (1 - stretch) * late)
    return np.concatenate(rows)[:n]


def bow(rng: Rng, n: int, sr: int, f: float) -> np.ndarray:
    vibrato = 1 + rng.uniform(0, 0.012) * np.sin(2 * np.pi * rng.uniform(4, 7) * np.arange(n) / sr)
    amps = 1 / np.arange(1, 15) ** rng.uniform(0.8, 1.5)
    x = partials(f * vibrato, n, sr, amps) + rng.uniform(0.02, 0.15) * white(rng, n)
    x = resonate(x, sr, rng.uniform(300, 900), 300) + 0.3 * x
    return x * swell(n, sr, rng.uniform(0.03, 0.25), 0.08)


def blow(rng: Rng, n: int, sr: int, f: float) -> np.ndarray:
    odd = rng.random() < 0.4  # a clarinet-like tube has odd partials
    amps = 1 / np.arange(1, 11) ** rng.uniform(1.0, 2.6) * np.where(odd & (np.arange(1, 11) % 2 == 0), 0.1, 1)
    x = partials(f * (1 + 0.01 * curve(rng, n, sr, 6)), n, sr, amps)
    breath = band(white(rng, n), sr, f, 6 * f) * rng.uniform(0.05, 0.5)
    return (x + breath) * swell(n, sr, rng.uniform(0.02, 0.15), 0.06) * (1 + 0.3 * curve(rng, n, sr, 5))


def struck(rng: Rng, n: int, sr: int, f: float) -> np.ndarray:
    if rng.random() < 0.2:  # organ
        drawbars = rng.random(8) * np.array([1, 1, 0.6, 0.8, 0.3, 0.3, 0.1, 0.4])
        return partials(f, n, sr, drawbars) * swell(n, sr, 0.008, 0.03)
    stretch = rng.uniform(0.0001, 0.0009)
    k = np.arange(1, 11)
    x = modes(rng, n, sr, f * k * np.sqrt(1 + stretch * k * k), rng.uniform(0.3, 1.2))
    knock = modes(rng, min(n, sr // 20 + 1), sr, rng.uniform(150, 900, 4), 0.008)
    place(x, knock, 0, 0.3)
    return x


def synthetic(rng: Rng, n: int, sr: int, f: float) -> np.ndarray:
    """Saw, square or FM tone through a moving filter."""
    kind = rng.integers(3)
    if kind == 2:
        t = np.arange(n) / sr
        depth = rng.uniform(1, 6) * decay(n, sr, rng.uniform(0.1, 1))
        x = np.sin(2 * np.pi * f * t + depth * np.sin(2 * np.pi * f * rng.choice([0.5, 1, 1.41, 2, 3.5]) * t))
    else:
        k = np.arange(1, 25)
        x = partials(f * rng.choice([1, 1.005]), n, sr, np.where(kind & (k % 2 == 0), 0, 1 / k))
        x = x + partials(f * 1.007, n, sr, 1 / k[:12])
    dark, sweep = lowpass(x, sr, rng.uniform(200, 1200)), curve(rng, n, sr, rng.uniform(0.5, 4))
    return (dark * sweep + x * (1 - sweep)) * swell(n, sr, rng.uniform(0.002, 0.1), 0.05)


NOTES: tuple[Callable, ...] = (pluck, bow, blow, struck, synthetic)


def drum(rng: Rng, n: int, sr: int, kind: int) -> np.ndarray:
    """Kick, snare, hat, tom, cymbal, wood block or shaker (0 … 6)."""
    t = np.arange(n) / sr
    if kind == 0:
        f = rng.uniform(42, 70) * (1 + rng.uniform(1, 5) * np.exp(-t / 0.025))
        return np.sin(2 * np.pi * np.cumsum(f) / sr) * decay(n, sr, rng.uniform(0.06, 0.25))
    if kind == 1:
        tone = modes(rng, n, sr, rng.uniform(150, 260) * np.array([1, 1.6, 2.3]), 0.05)
        return tone + band(white(rng, n), sr, 1200, 9000) * decay(n, sr, rng.uniform(0.04, 0.14))
    if kind == 2:
        return band(white(rng, n), sr, 5500, 14000) * decay(n, sr, rng.uniform(0.012, 0.09), 0.0005)
    if kind == 3:
        return modes(rng, n, sr, rng.uniform(80, 320) * np.array([1, 1.59, 2.14, 2.65]), rng.uniform(0.06, 0.25))
    if kind == 4:
        metal = modes(rng, n, sr, np.sort(rng.uniform(400, 7500, 12)), rng.uniform(0.2, 0.9))
        return metal + 0.5 * band(white(rng, n), sr, 3000, 12000) * decay(n, sr, rng.uniform(0.1, 0.5))
    if kind == 5:
        return modes(rng, n, sr, rng.uniform(500, 1800) * np.array([1, 2.7, 5.1]), rng.uniform(0.008, 0.03))
    return band(white(rng, n), sr, 3000, 10000) * swell(n, sr, 0.02, 0.02) * decay(n, sr, 0.05, 0.015)


SCALES = (
    np.array([0, 2, 4, 5, 7, 9, 11, 12]),
    np.array([0, 2, 3, 5, 7, 8, 10, 12]),
    np.array([0, 3, 5, 7, 10, 12]),
)


def melody(rng: Rng, n: int, sr: int, note: Callable, low: float, pace: float) -> np.ndarray:
    """Notes of one instrument on a random scale, about `pace` a second."""
    out, at, scale = np.zeros(n), 0.0, SCALES[rng.integers(3)]
    degree = rng.integers(len(scale))
    while at < n:
        length = sr / pace * rng.choice([0.5, 1, 1, 1.5])
        f = low * 2 ** (scale[degree] / 12)
        m = min(int(length * rng.uniform(0.8, 1.6)) + 8, n)
        place(out, unit(note(rng, m, sr, f)), at, rng.uniform(0.5, 1))
        degree = int(np.clip(degree + rng.integers(-2, 3), 0, len(scale) - 1))
        at += length
    return out


def beat(rng: Rng, n: int, sr: int, kinds: np.ndarray) -> np.ndarray:
    """Step pattern over the given drums."""
    step = 60 / rng.uniform(75, 175) / rng.choice([2, 3, 4]) * sr
    out = np.zeros(n)
    for kind in kinds:
        hit = unit(drum(rng, min(n, int(0.3 * sr)), sr, kind))
        pattern = rng.random(16) < rng.uniform(0.2, 0.6)
        pattern[0] |= kind == kinds[0]
        for i in range(int(n / step) + 1):
            if pattern[i % 16]:
                place(out, hit, i * step + rng.normal(0, 0.004) * sr if i else 0, rng.uniform(0.4, 1))
    return out


# -- voices ------------------------------------------------------------------------------------

VOWELS = np.array(
    [
        [730, 1090, 2440],
        [270, 2290, 3010],
        [300, 870, 2240],
        [530, 1840, 2480],
        [570, 840, 2410],
        [490, 1350, 1690],
    ]
)


def voice(rng: Rng, n: int, sr: int, *, flat: bool = False, pauses: float = 0.2) -> np.ndarray:
    """Formant babble of one speaker: syllables of voiced vowels and noisy consonants."""
    out, at = np.zeros(n), 0.0
    f0, tract = rng.choice([rng.uniform(85, 150), rng.uniform(160, 280)]), rng.uniform(0.88, 1.18)
    pace, width = rng.uniform(3.2, 6.5), rng.uniform(60, 130)
    while at < n:
        m = int(sr / pace * rng.uniform(0.6, 1.5)) + 16
        pitch = f0 * (1 if flat else rng.uniform(0.85, 1.25) * np.linspace(1, rng.uniform(0.8, 1.15), m))
        source = partials(pitch, m, sr, 1 / np.arange(1, 22) ** 0.6) + 0.08 * white(rng, m)
        vowel = VOWELS[rng.integers(len(VOWELS))] * tract * rng.uniform(0.93, 1.07, 3)
        sound = sum(
            g * resonate(source, sr, f, width * (1 + i))
            for i, (f, g) in enumerate(zip(vowel, (1, 0.7, 0.4), strict=True))
        )
        place(out, unit(sound) * swell(m, sr, 0.02, 0.05), at, rng.uniform(0.5, 1))
        if rng.random() < 0.55:
            k = int(rng.uniform(0.02, 0.1) * sr) + 8
            hiss = rng.uniform(1800, 5500)
            place(
                out,
                unit(band(white(rng, k), sr, hiss, 1.8 * hiss)) * np.hanning(k),
                at,
                rng.uniform(0.1, 0.45),
            )
        at += m * rng.uniform(0.85, 1.1) + (rng.uniform(0.1, 0.4) * sr if rng.random() < pauses else 0)
    return out


def babble(rng: Rng, n: int, sr: int, voices: int) -> np.ndarray:
    """`voices` speakers at once, at different distances."""
    return sum(rng.uniform(0.3, 1) * voice(rng, n, sr, pauses=0.35) for _ in range(voices))
