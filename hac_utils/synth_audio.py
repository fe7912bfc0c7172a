"""One sound recipe per BST class, for the synthetic demo corpus.

A recipe is a function ``(rng, n, sr) -> (n,)``: it draws everything it needs from `rng` and
returns `n` mono samples at `sr` Hz in no particular scale. Recipes are meant to be varied, not
pretty: a class is a way of making sounds, so that two clips of one class differ in pitch, pace,
brightness and kind.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .synth_sources import (
    NOTES,
    SCALES,
    Rng,
    babble,
    band,
    beat,
    blow,
    bow,
    coloured,
    curve,
    decay,
    drum,
    lowpass,
    melody,
    modes,
    partials,
    place,
    pluck,
    resonate,
    room,
    struck,
    swell,
    synthetic,
    times,
    unit,
    voice,
    white,
)

# -- recipes: music, instrument samples, speech ------------------------------------------------


def m_sp(rng, n, sr):
    return beat(rng, n, sr, rng.choice(7, rng.integers(1, 5), replace=False))


def m_si(rng, n, sr):
    return melody(
        rng,
        n,
        sr,
        NOTES[rng.choice(5, p=[0.3, 0.15, 0.2, 0.2, 0.15])],
        rng.uniform(90, 520),
        rng.uniform(2, 7),
    )


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
    out = _single((synthetic,), 35, 450)(rng, n, sr)
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
        place(
            out,
            white(rng, min(m, sr // 60)) * decay(min(m, sr // 60), sr, 0.003, 0.0003),
            at,
            rng.uniform(0.1, 0.8),
        )
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
    x = x + rng.uniform(0.05, 0.45) * band(coloured(rng, n, 0.8), sr, 200, 3500)
    if rng.random() < 0.6:  # passing by
        t = np.arange(n) / sr
        x = x / (0.15 + np.abs(t - t[-1] * rng.uniform(0.2, 0.8)) / max(t[-1], 0.05)) ** rng.uniform(0.5, 1.5)
    return x


def fx_m(rng, n, sr):
    hum = rng.choice([100, 120, rng.uniform(90, 420)])
    x = partials(hum * (1 + 0.01 * curve(rng, n, sr, 2)), n, sr, rng.uniform(0, 1, 20))
    x = unit(x) + rng.uniform(0.2, 1.2) * band(white(rng, n), sr, rng.uniform(200, 1500), rng.uniform(2500, 9000))
    if rng.random() < 0.6:
        step, click = (
            sr / rng.uniform(4, 22),
            modes(rng, min(n, sr // 15), sr, rng.uniform(400, 5000, 4), 0.01),
        )
        for at in np.arange(0, n, step):
            place(x, click, at, rng.uniform(0.5, 1.5))
    return x


def fx_h(rng, n, sr):
    kind, out = rng.choice(4, p=[0.3, 0.3, 0.25, 0.15]), np.zeros(n)
    if kind == 0:  # footsteps
        for at in np.arange(rng.uniform(0, min(0.1 * sr, 0.2 * n)), n, sr / rng.uniform(1.4, 3.2)):
            m = min(n, int(0.16 * sr))
            thud = modes(rng, m, sr, rng.uniform(60, 220) * np.array([1, 1.7]), 0.03)
            place(
                out,
                thud + band(white(rng, m), sr, 700, 6000) * decay(m, sr, 0.03, 0.01),
                at,
                rng.uniform(0.5, 1),
            )
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
            place(
                out,
                band(white(rng, m), sr, rng.uniform(600, 1400), rng.uniform(2500, 6000)) * decay(m, sr, 0.02, 0.001),
                at,
            )
    else:  # cough, laugh, shout
        for at in times(rng, n, sr, rng.uniform(1.5, 4)):
            m = min(n, int(rng.uniform(0.12, 0.35) * sr) + 8)
            f = np.linspace(rng.uniform(150, 450), rng.uniform(90, 300), m)
            x = unit(partials(f, m, sr, 1 / np.arange(1, 16) ** 0.7)) + rng.uniform(0.2, 1.5) * white(rng, m)
            place(
                out,
                resonate(x, sr, rng.uniform(500, 1100), 250) * decay(m, sr, 0.1, 0.015),
                at,
                rng.uniform(0.5, 1),
            )
    return out


def chirps(rng, n, sr, rate, low, high):
    out = np.zeros(n)
    for at in times(rng, n, sr, rate):
        m = min(n, int(rng.uniform(0.03, 0.2) * sr) + 8)
        f = rng.uniform(low, high) * np.interp(np.arange(m), np.linspace(0, m, 4), rng.uniform(0.7, 1.3, 4))
        place(out, partials(f, m, sr, np.array([1, 0.2])) * np.hanning(m), at, rng.uniform(0.3, 1))
    return out


def fx_a(rng, n, sr):
    kind = rng.choice(4, p=[0.12, 0.48, 0.25, 0.15])
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
        x = resonate(x, sr, rng.uniform(900, 1500), 180) + 0.6 * resonate(x, sr, rng.uniform(2200, 3200), 250)
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
        return (
            coloured(rng, n, 1.6) * (0.1 + gust**2) + rng.uniform(0.1, 0.8) * band(white(rng, n), sr, 350, 1400) * gust
        )
    if kind == 2:  # thunder, explosion
        x = coloured(rng, n, 2) * decay(n, sr, rng.uniform(0.15, 1), rng.uniform(0.003, 0.1))
        return (
            x
            + 0.4 * white(rng, n) * decay(n, sr, rng.uniform(0.02, 0.15))
            + 0.1 * coloured(rng, n, 1.8) * curve(rng, n, sr, 8)
        )
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
    kind, t = rng.choice(4, p=[0.35, 0.35, 0.2, 0.1]), np.arange(n) / sr
    if kind == 0:  # zap, laser
        f = rng.uniform(150, 900) + rng.uniform(2000, 7000) * np.exp(-t / rng.uniform(0.03, 0.4))
        return partials(f, n, sr, np.array([1, 0.5, 0.3])) * decay(n, sr, rng.uniform(0.08, 0.6))
    if kind == 1:  # beeps
        gate = (t * rng.uniform(4, 12)) % 1 < rng.uniform(0.2, 0.8)
        f = rng.uniform(900, 3600) * np.where((t * 3).astype(int) % 2, rng.choice([1, 1.25, 1.5]), 1)
        return partials(f, n, sr, np.array([1, 0, rng.uniform(0, 0.5)])) * gate
    if kind == 2:  # riser, whoosh
        x, up = coloured(rng, n, 0.5), np.linspace(0, 1, n) ** 2
        return (
            band(x, sr, 200, 900) * (1 - up)
            + band(x, sr, 2000, 7000) * up
            + 0.5 * partials(200 + 1500 * up, n, sr, np.array([1, 0.5]))
        )
    rate = rng.uniform(4, 30)
    return synthetic(rng, n, sr, rng.uniform(60, 700)) * (0.5 + 0.5 * np.sin(2 * np.pi * rate * t)) + 0.1 * white(
        rng, n
    )


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
    x = coloured(rng, n, rng.uniform(0.9, 1.8)) + rng.uniform(0.15, 0.5) * unit(fx_v(rng, n, sr))
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
    "fx-o": fx_o, "fx-v": fx_v, "fx-m": fx_m, "fx-h": fx_h, "fx-a": fx_a,
    "fx-n": fx_n, "fx-ex": fx_ex, "fx-el": fx_el,
    "ss-n": ss_n, "ss-i": ss_i, "ss-u": ss_u, "ss-s": ss_s,
}  # fmt: skip
