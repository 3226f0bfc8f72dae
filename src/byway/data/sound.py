"""What a sound is like, without any weights: the spectrum on the mel scale, and how it moves.

Owns the features of sound; it does not decode files.
"""

import numpy as np
from numpy.typing import NDArray

from byway.data.decoding import RATE

BANDS = 40
"""Mel bands, 10 ms apart in time, from kaldi-native-fbank."""
FEATURES = 4 * BANDS + 3
"""Length of `features`."""
SILENCE = 1e-4
"""Root mean square below which there is nothing to hear (-80 dB)."""


def features(samples: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """[FEATURES] of mono samples at RATE: each band's mean, spread, 10th percentile and mean change in log energy,
    loudness, its spread, and how often the loudness turns. None where there is nothing to hear.
    """
    import kaldi_native_fbank as knf

    if len(samples) < RATE // 10 or float(np.sqrt(np.mean(samples**2))) < SILENCE:
        return None
    options = knf.FbankOptions()
    options.frame_opts.samp_freq = RATE
    options.frame_opts.dither = 0.0
    options.mel_opts.num_bins = BANDS
    bank = knf.OnlineFbank(options)
    # The library expects the range of 16-bit samples.
    bank.accept_waveform(RATE, (samples * 32768).tolist())
    bank.input_finished()
    energy = np.stack([bank.get_frame(i) for i in range(bank.num_frames_ready)])
    loudness = energy.mean(axis=1)
    change = np.abs(np.diff(energy, axis=0, prepend=energy[:1])).mean(axis=0)
    turns = float((np.diff(np.sign(np.diff(loudness))) != 0).mean()) if len(loudness) > 2 else 0.0
    bands = (energy.mean(axis=0), energy.std(axis=0), np.percentile(energy, 10, axis=0), change)
    tail = [float(loudness.mean()), float(loudness.std()), turns]
    return np.concatenate([*bands, tail]).astype(np.float32)
