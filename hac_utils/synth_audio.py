"""One sound recipe per BST class, for the synthetic demo corpus.

A recipe is a function ``(rng, n, sr) -> (n,)``: it draws everything it needs from `rng` and
returns `n` mono samples at `sr` Hz in no particular scale. Recipes are meant to be varied, not
pretty: a class is a way of making sounds, so that two clips of one class differ in pitch, pace,
brightness and kind.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.signal import butter, fftconvolve, lfilter, sosfilt

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
    """Second-order Butterworth band-pass from `low` to `high` Hz, kept inside the Nyquist range."""
    high = min(high, 0.46 * sr)
    low = min(max(low, 15.0), high / 1.15)
    return sosfilt(butter(1, [low, high], "bandpass", fs=sr, output="sos"), x)


def lowpass(x: np.ndarray, sr: int, cut: float) -> np.ndarray:
    """Second-order low-pass at `cut` Hz; nothing happens close to the Nyquist frequency."""
    return sosfilt(butter(2, cut, fs=sr, output="sos"), x) if cut < 0.47 * sr else x


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
    z = np.exp(2j * np.pi / sr * np.cumsum(f))
    top = int(0.47 * sr / max(float(f.max()), 1.0))
    power, out = np.ones(n, complex), np.zeros(n)
    for a in amps[:max(top, 1)]:
        power = power * z
        out += a * power.imag
    return out


def modes(rng: Rng, n: int, sr: int, freqs: np.ndarray, tau: float) -> np.ndarray:
    """Struck object: damped sinusoids at `freqs` Hz, higher ones die sooner; shape (n,)."""
    out = np.zeros(n)
    for i, f in enumerate(freqs):
        if f < 0.46 * sr:
            m = min(n, int(6 * tau * sr) + 1)
            t = np.arange(m) / sr
            out[:m] += rng.uniform(0.3, 1) * np.exp(-t / (tau * (freqs[0] / f) ** 0.5)) * np.sin(2 * np.pi * f * t + i)
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
        block = loss * (stretch * block + (1 - stretch) * np.roll(block, 1))
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
    if rng.random() < 0.3:  # organ
        drawbars = rng.random(8) * np.array([1, 1, 0.6, 0.8, 0.3, 0.3, 0.1, 0.4])
        return partials(f, n, sr, drawbars) * swell(n, sr, 0.008, 0.03)
    stretch = rng.uniform(0.0001, 0.0009)
    k = np.arange(1, 11)
    x = modes(rng, n, sr, f * k * np.sqrt(1 + stretch * k * k), rng.uniform(0.15, 0.8))
    knock = modes(rng, min(n, sr // 20 + 1), sr, rng.uniform(150, 900, 4), 0.008)
    place(x, knock, 0, 0.5)
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


SCALES = (np.array([0, 2, 4, 5, 7, 9, 11, 12]), np.array([0, 2, 3, 5, 7, 8, 10, 12]), np.array([0, 3, 5, 7, 10, 12]))


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

VOWELS = np.array([[730, 1090, 2440], [270, 2290, 3010], [300, 870, 2240], [530, 1840, 2480], [570, 840, 2410], [490, 1350, 1690]])


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
        sound = sum(g * resonate(source, sr, f, width * (1 + i)) for i, (f, g) in enumerate(zip(vowel, (1, 0.7, 0.4), strict=True)))
        place(out, unit(sound) * swell(m, sr, 0.02, 0.05), at, rng.uniform(0.5, 1))
        if rng.random() < 0.55:
            k = int(rng.uniform(0.02, 0.1) * sr) + 8
            hiss = rng.uniform(1800, 5500)
            place(out, unit(band(white(rng, k), sr, hiss, 1.8 * hiss)) * np.hanning(k), at, rng.uniform(0.1, 0.45))
        at += m * rng.uniform(0.85, 1.1) + (rng.uniform(0.1, 0.4) * sr if rng.random() < pauses else 0)
    return out


def babble(rng: Rng, n: int, sr: int, voices: int) -> np.ndarray:
    """`voices` speakers at once, at different distances."""
    return sum(rng.uniform(0.3, 1) * voice(rng, n, sr, pauses=0.35) for _ in range(voices))


# -- recipes: music, instrument samples, speech ------------------------------------------------


def m_sp(rng, n, sr):
    return beat(rng, n, sr, rng.choice(7, rng.integers(1, 5), replace=False))


def m_si(rng, n, sr):
    return melody(rng, n, sr, NOTES[rng.choice(5, p=[0.3, 0.15, 0.2, 0.2, 0.15])], rng.uniform(90, 520), rng.uniform(2, 7))


def m_m(rng, n, sr):
    root, scale = rng.uniform(50, 110), SCALES[rng.integers(2)]
    out = unit(beat(rng, n, sr, rng.choice(7, rng.integers(1, 4), replace=False))) * rng.uniform(0, 1)
    out = out + unit(melody(rng, n, sr, NOTES[rng.choice([0, 3, 4])], root, rng.uniform(1.5, 4))) * rng.uniform(0.3, 1)
    length = int(sr * rng.uniform(0.4, 1.2)) + 8
    note = NOTES[rng.integers(5)]
    for at in range(0, n, length):
        degree = rng.integers(0, 4)
        for d in (0, 2, 4):
            f = root * 4 * 2 ** (scale[(degree + d) % len(scale)] / 12)
            place(out, unit(note(rng, min(length, n), sr, f)), at, rng.uniform(0.2, 0.5))
    if rng.random() < 0.5:
        out += rng.uniform(0.2, 0.6) * unit(melody(rng, n, sr, NOTES[rng.integers(5)], root * 6, rng.uniform(2, 6)))
    return out


def is_p(rng, n, sr):
    out, kind = np.zeros(n), rng.integers(7)
    place(out, drum(rng, n, sr, kind), rng.uniform(0, min(0.05 * sr, 0.1 * n)))
    if rng.random() < 0.15:
        place(out, drum(rng, n, sr, kind), 0.4 * n, rng.uniform(0.3, 1))
    return out


def _single(notes, low, high):
    def recipe(rng, n, sr):
        note = notes[rng.integers(len(notes))]
        f, out = float(np.exp(rng.uniform(np.log(low), np.log(high)))), np.zeros(n)
        lag = int(rng.uniform(0, 0.06) * min(sr, n))
        out[lag:] = note(rng, n - lag, sr, f)
        if rng.random() < 0.15:
            place(out, note(rng, n - lag, sr, f * rng.choice([1.26, 1.5, 2])), lag, 0.8)
        return out

    return recipe


def is_e(rng, n, sr):
    out = _single((synthetic,), 40, 900)(rng, n, sr)
    if rng.random() < 0.35:  # arpeggio or gated tone
        out = out * (np.sin(2 * np.pi * rng.uniform(3, 14) * np.arange(n) / sr) > rng.uniform(-0.5, 0.4))
    return out


def sp_s(rng, n, sr):
    x = voice(rng, n, sr)
    return room(rng, x, sr, rng.uniform(0.1, 0.4), rng.uniform(0, 0.35))


def sp_c(rng, n, sr):
    x = babble(rng, n, sr, int(rng.integers(2, 8)))
    x = room(rng, x, sr, rng.uniform(0.2, 0.9), rng.uniform(0.15, 0.7))
    return x + rng.uniform(0.02, 0.25) * coloured(rng, n, 1.4)


def sp_p(rng, n, sr):
    kind, t = rng.integers(5), np.arange(n) / sr
    x = voice(rng, n, sr, flat=kind in (0, 4))
    if kind == 1:
        x = x * np.sin(2 * np.pi * rng.uniform(30, 400) * t)
    elif kind == 2:
        x = np.tanh(rng.uniform(2, 8) * unit(band(x, sr, 350, 3200)))
    elif kind == 3:
        for k in range(1, 4):
            place(x, x.copy(), k * rng.uniform(0.08, 0.25) * sr, 0.6**k)
    elif kind == 4:
        hold = int(rng.integers(3, 12))
        x = np.repeat(x[::hold], hold)[:n] * (0.7 + 0.3 * np.sin(2 * np.pi * rng.uniform(40, 120) * t))
    return x


# -- recipes: sound effects --------------------------------------------------------------------


def fx_o(rng, n, sr):
    out, kind = np.zeros(n), rng.integers(4)
    rate = [2, 5, 18, 1.2][kind]
    body = np.sort(np.exp(rng.uniform(np.log(250), np.log(6500), 7)))
    tau = [0.02, 0.08, 0.012, 0.2][kind] * rng.uniform(0.5, 2)
    for at in times(rng, n, sr, rate):
        m = min(n, int(0.4 * sr))
        place(out, modes(rng, m, sr, body * rng.uniform(0.94, 1.06), tau), at, rng.uniform(0.2, 1))
        place(out, white(rng, min(m, sr // 60)) * decay(min(m, sr // 60), sr, 0.003, 0.0003), at, rng.uniform(0.1, 0.8))
    if rng.random() < 0.35:  # friction: paper, cloth, zip
        out += 0.15 * band(white(rng, n), sr, 1500, 8000) * curve(rng, n, sr, rng.uniform(5, 25)) ** 2
    return out


def _engine(rng, n, sr, rpm, rough):
    firing = rpm / 60 * rng.choice([1, 1.5, 2, 3])
    x = partials(firing, n, sr, rng.uniform(0.3, 1, 18) / np.arange(1, 19) ** 0.7)
    noise = coloured(rng, n, 1) * (1 + np.sin(2 * np.pi * np.cumsum(np.broadcast_to(firing, n)) / sr))
    return resonate(unit(x) + rough * noise, sr, rng.uniform(90, 400), 150) + 0.2 * unit(x)


def fx_v(rng, n, sr):
    rpm = np.linspace(rng.uniform(700, 2500), rng.uniform(700, 5500), n) * (1 + 0.1 * curve(rng, n, sr, 3))
    x = unit(_engine(rng, n, sr, rpm, rng.uniform(0.2, 0.8)))
    x = x + rng.uniform(0.1, 0.9) * band(coloured(rng, n, 0.8), sr, 200, 3500)
    if rng.random() < 0.6:  # passing by
        t = np.arange(n) / sr
        x = x / (0.15 + np.abs(t - t[-1] * rng.uniform(0.2, 0.8)) / max(t[-1], 0.05)) ** rng.uniform(0.5, 1.5)
    return x


def fx_m(rng, n, sr):
    hum = rng.choice([50, 60, rng.uniform(25, 200)])
    x = partials(hum * (1 + 0.01 * curve(rng, n, sr, 2)), n, sr, rng.uniform(0, 1, 20))
    x = unit(x) + rng.uniform(0.2, 1.2) * band(white(rng, n), sr, rng.uniform(200, 1500), rng.uniform(2500, 9000))
    if rng.random() < 0.6:
        step, click = sr / rng.uniform(4, 22), modes(rng, min(n, sr // 15), sr, rng.uniform(400, 5000, 4), 0.01)
        for at in np.arange(0, n, step):
            place(x, click, at, rng.uniform(0.5, 1.5))
    return x


def fx_h(rng, n, sr):
    kind, out = rng.integers(4), np.zeros(n)
    if kind == 0:  # footsteps
        for at in np.arange(rng.uniform(0, 0.1) * sr, n, sr / rng.uniform(1.4, 3.2)):
            m = min(n, int(0.16 * sr))
            thud = modes(rng, m, sr, rng.uniform(60, 220) * np.array([1, 1.7]), 0.03)
            place(out, thud + band(white(rng, m), sr, 700, 6000) * decay(m, sr, 0.03, 0.01), at, rng.uniform(0.5, 1))
    elif kind == 1:  # breath, snore, sniff
        pace = rng.uniform(0.6, 2.5)
        cycle = np.abs(np.sin(np.pi * pace * np.arange(n) / sr + rng.uniform(0, 3))) ** 2
        centre = rng.uniform(500, 2500)
        out = band(white(rng, n), sr, centre, 2.6 * centre) * cycle
        if rng.random() < 0.3:
            out = out * (1 + np.sin(2 * np.pi * rng.uniform(25, 60) * np.arange(n) / sr))
    elif kind == 2:  # claps, knuckles
        for at in times(rng, n, sr, rng.uniform(1.5, 8)):
            m = min(n, int(0.1 * sr))
            place(out, band(white(rng, m), sr, rng.uniform(600, 1400), rng.uniform(2500, 6000)) * decay(m, sr, 0.02, 0.001), at)
    else:  # cough, laugh, shout
        for at in times(rng, n, sr, rng.uniform(1.5, 4)):
            m = min(n, int(rng.uniform(0.12, 0.35) * sr) + 8)
            f = np.linspace(rng.uniform(150, 450), rng.uniform(90, 300), m)
            x = unit(partials(f, m, sr, 1 / np.arange(1, 16) ** 0.7)) + rng.uniform(0.2, 1.5) * white(rng, m)
            place(out, resonate(x, sr, rng.uniform(500, 1100), 250) * decay(m, sr, 0.1, 0.015), at, rng.uniform(0.5, 1))
    return out


def chirps(rng, n, sr, rate, low, high):
    out = np.zeros(n)
    for at in times(rng, n, sr, rate):
        m = min(n, int(rng.uniform(0.03, 0.2) * sr) + 8)
        f = rng.uniform(low, high) * np.interp(np.arange(m), np.linspace(0, m, 4), rng.uniform(0.7, 1.3, 4))
        place(out, partials(f, m, sr, np.array([1, 0.2])) * np.hanning(m), at, rng.uniform(0.3, 1))
    return out


def fx_a(rng, n, sr):
    kind = rng.integers(4)
    if kind == 0:
        return chirps(rng, n, sr, rng.uniform(3, 10), 1500, 6000)
    if kind == 3:  # insect
        gate = np.sin(2 * np.pi * rng.uniform(5, 40) * np.arange(n) / sr) > rng.uniform(-0.6, 0.6)
        return partials(rng.uniform(2500, 6500), n, sr, np.array([1, 0.3])) * gate * (0.4 + curve(rng, n, sr, 4))
    out = np.zeros(n)
    for at in times(rng, n, sr, rng.uniform(1, 3.5)):  # barks, meows, growls
        m = min(n, int(rng.uniform(0.1, 0.5 if kind == 1 else 0.9) * sr) + 8)
        base = rng.uniform(200, 800) if kind == 1 else rng.uniform(50, 160)
        f = base * np.interp(np.arange(m), np.linspace(0, m, 3), rng.uniform(0.7, 1.3, 3))
        x = unit(partials(f, m, sr, 1 / np.arange(1, 18) ** 0.5)) + rng.uniform(0.1, 0.8) * white(rng, m)
        x = resonate(x, sr, rng.uniform(500, 1600), 300) + 0.5 * resonate(x, sr, rng.uniform(1500, 3200), 500)
        if kind == 2:
            x = x * (1 + 0.9 * np.sin(2 * np.pi * rng.uniform(18, 45) * np.arange(m) / sr))
        place(out, x * np.hanning(m) ** 0.5, at, rng.uniform(0.5, 1))
    return out


def drops(rng, n, sr, rate):
    out = np.zeros(n)
    for at in times(rng, n, sr, rate)[:60]:
        m = min(n, int(rng.uniform(0.01, 0.05) * sr) + 4)
        f = rng.uniform(500, 2800) * np.linspace(1, rng.uniform(1, 2), m)
        place(out, np.sin(2 * np.pi * np.cumsum(f) / sr) * decay(m, sr, 0.012), at, rng.uniform(0.1, 1))
    return out


def fx_n(rng, n, sr):
    kind = rng.integers(5)
    if kind == 0:  # stream, rain
        return unit(drops(rng, n, sr, rng.uniform(8, 50))) + rng.uniform(0.2, 1) * band(white(rng, n), sr, 600, 7000)
    if kind == 1:  # wind
        gust = curve(rng, n, sr, rng.uniform(0.7, 3))
        return coloured(rng, n, 1.6) * (0.1 + gust**2) + rng.uniform(0.1, 0.8) * band(white(rng, n), sr, 350, 1400) * gust
    if kind == 2:  # thunder, explosion
        x = coloured(rng, n, 2) * decay(n, sr, rng.uniform(0.15, 1), rng.uniform(0.003, 0.1))
        return x + 0.4 * white(rng, n) * decay(n, sr, rng.uniform(0.02, 0.15)) + 0.1 * coloured(rng, n, 1.8) * curve(rng, n, sr, 8)
    if kind == 3:  # fire
        crackle = white(rng, n) * (rng.random(n) < rng.uniform(10, 80) / sr) * 40
        return lowpass(crackle, sr, 6000) + rng.uniform(0.2, 0.8) * coloured(rng, n, 1.2)
    surf = np.abs(np.sin(np.pi * rng.uniform(0.15, 0.6) * np.arange(n) / sr + rng.uniform(0, 3)))
    return coloured(rng, n, 0.6) * (0.15 + surf**2)


def fx_ex(rng, n, sr):
    """Any other sound cut into grains, reversed, resampled or modulated."""
    x = unit(RECIPES[rng.choice(["m-si", "sp-s", "fx-o", "fx-m", "is-e", "fx-n"])](rng, n, sr))
    out, grain = np.zeros(n), int(sr * rng.uniform(0.02, 0.15)) + 8
    if rng.random() < 0.65 and n > 2 * grain:
        for at in range(0, n, max(grain // 2, n // 60)):
            start = rng.integers(0, n - grain)
            piece = x[start : start + grain] * np.hanning(grain)
            place(out, piece[:: rng.choice([1, -1, 2])], at, rng.uniform(0.2, 1))
    else:
        out = x[::-1] * np.sin(2 * np.pi * np.cumsum(rng.uniform(20, 300) + 900 * curve(rng, n, sr, 4)) / sr)
    return room(rng, out, sr, rng.uniform(0.2, 1), rng.uniform(0, 0.6))


def fx_el(rng, n, sr):
    kind, t = rng.integers(4), np.arange(n) / sr
    if kind == 0:  # zap, laser
        f = rng.uniform(150, 900) + rng.uniform(1000, 6000) * np.exp(-t / rng.uniform(0.03, 0.4))
        return partials(f, n, sr, np.array([1, 0.5, 0.3])) * decay(n, sr, rng.uniform(0.08, 0.6))
    if kind == 1:  # beeps
        gate = (t * rng.uniform(2, 9)) % 1 < rng.uniform(0.2, 0.8)
        f = rng.uniform(400, 2600) * np.where((t * 3).astype(int) % 2, rng.choice([1, 1.25, 1.5]), 1)
        return partials(f, n, sr, np.array([1, 0, rng.uniform(0, 0.5)])) * gate
    if kind == 2:  # riser, whoosh
        x, up = coloured(rng, n, 0.5), np.linspace(0, 1, n) ** 2
        return band(x, sr, 200, 900) * (1 - up) + band(x, sr, 2000, 7000) * up + 0.5 * partials(200 + 1500 * up, n, sr, np.array([1, 0.5]))
    rate = rng.uniform(4, 30)
    return synthetic(rng, n, sr, rng.uniform(60, 700)) * (0.5 + 0.5 * np.sin(2 * np.pi * rate * t)) + 0.1 * white(rng, n)


# -- recipes: soundscapes ----------------------------------------------------------------------


def ss_n(rng, n, sr):
    x = coloured(rng, n, rng.uniform(0.7, 1.8)) * (0.5 + curve(rng, n, sr, 1.5)) * rng.uniform(0.3, 1)
    x = x + rng.uniform(0.3, 1) * unit(room(rng, chirps(rng, n, sr, rng.uniform(2, 9), 1800, 6500), sr, 0.3, 0.3))
    if rng.random() < 0.4:
        x = x + rng.uniform(0.2, 0.8) * unit(drops(rng, n, sr, 20))
    return x


def ss_i(rng, n, sr):
    x = coloured(rng, n, rng.uniform(1.1, 2)) + 0.15 * partials(rng.choice([50, 60, 100, 120]), n, sr, rng.random(8))
    for at in times(rng, n, sr, rng.uniform(0.5, 4)):
        m = min(n, int(0.3 * sr))
        place(x, unit(modes(rng, m, sr, np.sort(rng.uniform(150, 3500, 5)), 0.03)), at, rng.uniform(0.3, 2.5))
    if rng.random() < 0.6:
        x = x + rng.uniform(0.1, 0.7) * unit(lowpass(voice(rng, n, sr, pauses=0.5), sr, 1400))
    return room(rng, x, sr, rng.uniform(0.3, 1), rng.uniform(0.2, 0.6))


def ss_u(rng, n, sr):
    x = coloured(rng, n, rng.uniform(0.9, 1.8)) + rng.uniform(0.2, 0.7) * unit(fx_v(rng, n, sr))
    if rng.random() < 0.4:  # horn
        m = min(n, int(rng.uniform(0.2, 0.6) * sr) + 8)
        horn = unit(partials(rng.uniform(320, 500), m, sr, 1 / np.arange(1, 12) ** 0.5)) * swell(m, sr, 0.02, 0.05)
        place(x, horn, rng.uniform(0, 0.6) * n, rng.uniform(0.5, 1.5))
    if rng.random() < 0.6:
        x = x + rng.uniform(0.1, 0.7) * unit(babble(rng, n, sr, int(rng.integers(1, 4))))
    return room(rng, x, sr, rng.uniform(0.4, 1), rng.uniform(0.1, 0.4))


def ss_s(rng, n, sr):
    root, out = rng.uniform(45, 180), np.zeros(n)
    for ratio in rng.choice([1, 1.5, 2, 2.02, 2.98, 4.01, 5.3], rng.integers(2, 5), replace=False):
        f = root * ratio * (1 + 0.004 * curve(rng, n, sr, 2))
        out += partials(f, n, sr, 1 / np.arange(1, 10) ** rng.uniform(0.8, 2)) * (0.2 + curve(rng, n, sr, 1.5))
    out = unit(out) + rng.uniform(0.02, 0.5) * coloured(rng, n, 1) * curve(rng, n, sr, 1)
    return room(rng, out, sr, rng.uniform(0.5, 1.2), rng.uniform(0.2, 0.7)) * swell(n, sr, 0.1, 0.1)


#: class code -> recipe, in taxonomy order.
RECIPES: dict[str, Callable[[Rng, int, int], np.ndarray]] = {
    "m-sp": m_sp, "m-si": m_si, "m-m": m_m,
    "is-p": is_p, "is-s": _single((pluck, pluck, bow), 70, 900), "is-w": _single((blow,), 120, 1400),
    "is-k": _single((struck,), 55, 1200), "is-e": is_e,
    "sp-s": sp_s, "sp-c": sp_c, "sp-p": sp_p,
    "fx-o": fx_o, "fx-v": fx_v, "fx-m": fx_m, "fx-h": fx_h, "fx-a": fx_a, "fx-n": fx_n, "fx-ex": fx_ex, "fx-el": fx_el,
    "ss-n": ss_n, "ss-i": ss_i, "ss-u": ss_u, "ss-s": ss_s,
}  # fmt: skip
