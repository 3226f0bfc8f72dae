"""Reading words: what hostile titles come to, what counts as a term, what repeats what."""

import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.interests import words
from byway.interests.terms import read

HOSTILE = [
    "<script>alert('x')</script> ramen",
    'ramen", "injected, comma\nnew line\ttab',
    "ramen &amp; &lt;b&gt; https://example.org/ramen?x=1",
    "🔥🍜 ramen ❤️\u200d🔥",
    "\u202eramen\u202c",
    "ra\u0000men ramen",
    "'ramen' ''-- ramen-- ;DROP TABLE items;--",
    "ｒａｍｅｎ １２３",
]


@pytest.mark.parametrize("title", HOSTILE)
def test_hostile_titles_give_clean_words(title: str) -> None:
    found = words.tokens(title)
    assert "ramen" in found
    assert all(re.fullmatch(r"[^\W_]+(['-]+[^\W_]+)*", word) for word in found)


@settings(deadline=None)
@given(st.text(max_size=200))
def test_a_token_is_letters_marks_and_digits_with_inner_joints(text: str) -> None:
    for word in words.tokens(text):
        kinds = {unicodedata.category(c)[0] for c in word if c not in "'-"}
        assert kinds <= {"L", "M", "N"}
        assert word[0] not in "'-"
        assert word[-1] not in "'-"
        assert word == word.lower()


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(max_size=60), st.lists(st.text(max_size=20), max_size=3)), max_size=12))
def test_terms_are_held_by_two_rows_and_readable(rows: list[tuple[str, list[str]]]) -> None:
    found = read(rows, 1.0)
    assert found.matrix.shape == (len(rows), len(found.forms)) == (len(rows), len(found.stems))
    if found.forms:
        assert found.matrix.sum(axis=0).min() >= 2
        assert found.matrix.max() == 1
    assert ((found.tagged >= 0) & (found.tagged <= 1)).all()
    for form in found.forms:
        assert all(words.telling(word) for word in form.split())
        assert "," not in form


def test_counts_forms_phrases_and_hashtags() -> None:
    rows = [
        ("Street food in Osaka", ["street food", "noodles"]),
        ("The best street food", ["noodle"]),
        ("Street foods and noodles", []),
        ("A street and a food", ["Noodles"]),
    ]
    found = read(rows, 1.0)
    column = {form: found.matrix[:, i].toarray().ravel().tolist() for i, form in enumerate(found.forms)}
    assert column == {
        "street": [1, 1, 1, 1],
        "food": [1, 1, 1, 1],
        "noodles": [1, 1, 1, 1],
        "street food": [1, 1, 1, 0],
    }
    tagged = dict(zip(found.forms, found.tagged.tolist(), strict=True))
    assert tagged == {"street": 0.25, "food": 0.25, "noodles": 0.75, "street food": pytest.approx(1 / 3)}


def test_frequent_words_and_dropped_words_are_no_terms() -> None:
    rows = [("ramen broth", []), ("ramen", []), ("ramen broth", []), ("ramen", [])]
    assert read(rows, 0.5).forms == ["broth"]
    assert read(rows, 1.0, ["Broth"]).forms == ["ramen"]
    assert read([], 1.0).forms == []


def test_a_phrase_does_not_span_parts_or_function_words() -> None:
    rows = [("king of hearts", ["red", "wine"])] * 4
    assert not any(" " in form for form in read(rows, 1.0).forms)


def test_scripts_without_spaces_give_pairs_of_letters_and_keep_short_words() -> None:
    assert words.tokens("我爱红烧肉") == ["我爱", "爱红", "红烧", "烧肉"]
    assert words.tokens("美食 教程") == ["美食", "教程"]
    assert words.tokens("مطبخ שלום हिन्दी") == ["مطبخ", "שלום", "हिन्दी"]
    found = read([("红烧肉的做法", []), ("红烧肉真好吃", [])], 1.0)
    assert found.forms == ["红烧", "烧肉"]


def test_likeness_is_symmetric_and_finds_repeats() -> None:
    pairs = [("game", "games"), ("knife", "knives"), ("cook", "cooking"), ("mini-world", "miniworld")]
    for a, b in pairs:
        one, two = (words.stem(a),), (words.stem(b),)
        assert words.alike(one, two)
        assert words.alike(two, one)
    for a, b in [("ramen", "broth"), ("cat", "dog"), ("music", "museum"), ("car", "card")]:
        assert not words.alike((words.stem(a),), (words.stem(b),)), (a, b)
    assert np.all([words.alike((w,), (w,)) for w in ("a", "ab", "abc", "abcd")])
