"""Reading words: what hostile titles come to, what counts as a term, what repeats what."""

import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.interests import tokens, words

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
    found = tokens.tokens(title)
    assert "ramen" in found
    assert all(re.fullmatch(r"[^\W_]+(['-]+[^\W_]+)*", word) for word in found)


@settings(deadline=None)
@given(st.text(max_size=200))
def test_a_token_is_letters_marks_and_digits_with_inner_joints(text: str) -> None:
    for word in tokens.tokens(text):
        kinds = {unicodedata.category(c)[0] for c in word if c not in "'-"}
        assert kinds <= {"L", "M", "N"}
        assert word[0] not in "'-"
        assert word[-1] not in "'-"
        assert word == word.lower()


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(max_size=60), st.lists(st.text(max_size=20), max_size=3)), max_size=12))
def test_terms_are_held_by_two_rows_and_readable(rows: list[tuple[str, list[str]]]) -> None:
    found = words.read(rows, 1.0)
    assert found.matrix.shape == (len(rows), len(found.forms)) == (len(rows), len(found.stems))
    if found.forms:
        assert found.matrix.sum(axis=0).min() >= 2
        assert found.matrix.max() == 1
    assert ((found.tagged >= 0) & (found.tagged <= 1)).all()
    for form in found.forms:
        assert all(tokens.telling(word) for word in form.split())
        assert "," not in form


def test_counts_forms_phrases_and_hashtags() -> None:
    rows = [
        ("Street food in Osaka", ["street food", "noodles"]),
        ("The best street food", ["noodle"]),
        ("Street foods and noodles", []),
        ("A street and a food", ["Noodles"]),
    ]
    found = words.read(rows, 1.0)
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
    assert words.read(rows, 0.5).forms == ["broth"]
    assert words.read(rows, 1.0, ["Broth"]).forms == ["ramen"]
    assert words.read([], 1.0).forms == []


def test_a_phrase_does_not_span_parts_or_function_words() -> None:
    rows = [("king of hearts", ["red", "wine"])] * 4
    assert not any(" " in form for form in words.read(rows, 1.0).forms)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("我爱红烧肉", ["我", "爱", "红烧", "肉"]),
        ("美食 教程", ["美食", "教程"]),
        ("ฟุตบอลสนาม", ["ฟุตบอล", "สนาม"]),
        ("ພາສາລາວ ອາຫານ", ["ພາສາ", "ລາວ", "ອາຫານ"]),
        ("サッカー試合監督", ["サッカー", "試合", "監督"]),
        ("スーパーマリオブラザーズ", ["スーパー", "マリオ", "ブラザーズ"]),
        ("مطبخ שלום हिन्दी தமிழ்நாடு", ["مطبخ", "שלום", "हिन्दी", "தமிழ்நாடு"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
    ],
)
def test_words_of_every_script_are_whole(text: str, wanted: list[str]) -> None:
    assert tokens.tokens(text) == wanted


@settings(deadline=None)
@given(st.text(alphabet="กขคงจฉเแโิีุูั่้์ฟตบอลสนาม\u0e33カタナーん漢字", max_size=40))
def test_no_mark_is_parted_from_its_letter(text: str) -> None:
    """No word begins with a mark that stood behind a letter."""
    clean = unicodedata.normalize("NFKC", text).lower()
    for word in tokens.tokens(text):
        at = clean.find(word)
        behind_a_letter = at > 0 and unicodedata.category(clean[at - 1])[0] in "LM"
        assert not (unicodedata.category(word[0])[0] == "M" and behind_a_letter), (text, word)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("<Parasite> trailer", ["parasite", "trailer"]),
        ("I <3 robots", ["i", "3", "robots"]),
        ("<b>bold</b><br/>move", ["bold", "move"]),
        ('<a href="https://example.org/x?y=1">link</a>', ["link"]),
        ("<a story> of <b>", ["a", "story", "of"]),
        ("Tom &amp; Jerry caf&eacute; &amp;#39;n&#39; roll", ["tom", "jerry", "café", "n", "roll"]),
        ("AT&T &notanentity; x<y and z>w", ["at", "t", "notanentity", "x", "y", "and", "z", "w"]),
    ],
)
def test_only_real_markup_goes_and_entities_are_letters(text: str, wanted: list[str]) -> None:
    assert tokens.tokens(text) == wanted


def test_words_without_spaces_make_phrases_without_spaces() -> None:
    found = words.read([("红烧肉的做法", []), ("红烧肉真好吃", []), ("红烧肉", [])], 1.0)
    assert "红烧肉" in found.forms
    assert not any(" " in form for form in found.forms)


def test_hashtags_that_are_several_words_are_parted_by_what_titles_say() -> None:
    rows = [
        ("trading the card of a rare set", ["tradingcards"]),
        ("all my cards, and a card", ["tradingcards"]),
        ("trading cards in Osaka", ["tradingcards"]),
        ("minecraft is mine, a craft", ["minecraft"]),
        ("craft of mine", ["minecraft"]),
        ("minecraft", ["carpets"]),
        ("the car and the pets", []),
        ("a car, two pets", ["carpets"]),
        ("nothing", ["carpets", "windowsill"]),
    ]
    found = words.read(rows, 1.0)
    assert "trading cards" in found.forms
    assert "tradingcards" not in found.forms
    assert "minecraft" in found.forms, "titles say it as one word"
    assert "carpets" not in found.forms, "its items say pets"
    held = {form: found.matrix[:, i].toarray().ravel().tolist() for i, form in enumerate(found.forms)}
    assert held["trading cards"] == [1, 1, 1, 0, 0, 0, 0, 0, 0]
    # Nobody who is tagged so ever says one of the words.
    apart = words.read([("car", []), ("car", []), ("pets", []), ("pets", []), ("x", ["carpets"])] * 2, 1.0)
    assert "carpets" in apart.forms


def test_likeness_is_symmetric_and_finds_repeats() -> None:
    pairs = [("game", "games"), ("knife", "knives"), ("cook", "cooking"), ("mini-world", "miniworld")]
    for a, b in pairs:
        one, two = (words.stem(a),), (words.stem(b),)
        assert words.alike(one, two)
        assert words.alike(two, one)
    for a, b in [("ramen", "broth"), ("cat", "dog"), ("music", "museum"), ("car", "card")]:
        assert not words.alike((words.stem(a),), (words.stem(b),)), (a, b)
    assert np.all([words.alike((w,), (w,)) for w in ("a", "ab", "abc", "abcd")])
