"""The restricted policy against brute force."""

import subprocess
import sys

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from byway.items import restrict


@st.composite
def cases(draw: st.DrawFn):
    """Small whole numbers, so that scores are exact and ties are common."""
    n, d = draw(st.integers(1, 40)), draw(st.integers(1, 4))
    small = st.integers(-3, 3)
    vectors = draw(arrays.arrays(np.float32, (n, d), elements=small))
    vector = draw(arrays.arrays(np.float32, d, elements=small))
    start = draw(st.integers(0, n))
    stop = draw(st.integers(start, n))
    exclude = draw(st.lists(st.integers(0, n - 1), max_size=2 * n))
    return vectors, vector, start, stop, np.array(exclude, dtype=np.int64)


def brute_force(vectors, vector, start, stop, k, exclude):
    """Score one item at a time, sort everything."""
    eligible = [p for p in range(start, stop) if p not in set(exclude.tolist())]
    scores = {p: sum(float(a) * float(b) for a, b in zip(vectors[p], vector, strict=True)) for p in eligible}
    return sorted(((p, scores[p]) for p in eligible), key=lambda pair: (-pair[1], pair[0]))[:k]


@settings(deadline=None)
@given(cases(), st.integers(0, 50))
def test_top_in_slice_is_exact(case, k):
    vectors, vector, start, stop, exclude = case
    positions, scores = restrict.top_in_slice(vectors, vector, start, stop, k, exclude)
    assert list(zip(positions.tolist(), scores.tolist(), strict=True)) == brute_force(
        vectors, vector, start, stop, k, exclude
    )
    assert positions.dtype == np.int64
    assert scores.dtype == np.float32


def test_memory_mapped_vectors_are_not_written_to(tmp_path):
    np.save(tmp_path / "v.npy", np.eye(3, dtype=np.float32))
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    positions, scores = restrict.top_in_slice(mapped, np.array([1, 2, 3], np.float32), 0, 3, 2, np.array([2]))
    assert positions.tolist() == [1, 0]
    assert scores.tolist() == [2.0, 1.0]


def test_serving_side_needs_no_torch():
    code = "import sys, byway.items.restrict; print(sorted({'torch', 'onnx', 'daft', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
