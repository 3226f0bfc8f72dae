"""Reading words: what hostile titles come to, what counts as a term, what repeats what."""

import itertools
import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.interests import words
from byway.interests.terms import count

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


def tokens(text: str) -> list[str]:
    return list(itertools.chain.from_iterable(words.runs(text)))


@pytest.mark.parametrize("title", HOSTILE)
def test_hostile_titles_give_clean_words(title: str) -> None:
    found = tokens(title)
    assert "ramen" in found
    assert all(re.fullmatch(r"[^\W_]+(['-]+[^\W_]+)*", word) for word in found)


@settings(deadline=None)
@given(st.text(max_size=200))
def test_a_token_is_letters_marks_and_digits_with_inner_joints(text: str) -> None:
    for word in tokens(text):
        joints = "'-" + words.JOINERS
        kinds = {unicodedata.category(c)[0] for c in word if c not in joints}
        assert kinds <= {"L", "M", "N"}
        assert word[0] not in joints
        assert word[-1] not in joints
        assert word == word.lower()


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(max_size=60), st.lists(st.text(max_size=20), max_size=3)), max_size=12))
def test_terms_are_held_by_two_rows_and_readable(rows: list[tuple[str, list[str]]]) -> None:
    found = count(rows, 1.0)
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
    found = count(rows, 1.0)
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
    assert count(rows, 0.5).forms == ["broth"]
    assert count(rows, 1.0, ["Broth"]).forms == ["ramen"]
    assert count([], 1.0).forms == []


def test_a_phrase_does_not_span_parts_or_function_words() -> None:
    rows = [("king of hearts", ["red", "wine"])] * 4
    assert not any(" " in form for form in count(rows, 1.0).forms)


WHOLE = {
    "ฟุตบอลสนาม": ["ฟุตบอล", "สนาม"],
    "ทำอาหารน้ำพริก": ["ทำ", "อาหาร", "น้ำ", "พริก"],
    "ພາສາລາວອາຫານ": ["ພາສາ", "ລາວ", "ອາຫານ"],
    "ភាសាខ្មែរអាហារ": ["ភាសាខ្មែរ", "អាហារ"],
    "မြန်မာဘာသာစကား": ["မြန်မာဘာသာ", "စကား"],
    "料理ラーメン天ぷら": ["料理", "ラーメン", "天ぷら"],
    "スーパーマリオブラザーズ実況": ["スーパーマリオブラザーズ", "実況"],
    "サッカー試合監督": ["サッカー", "試合", "監督"],
    "红烧排骨教程": ["红烧", "排骨", "教程"],
    "原神实况攻略": ["原神", "实况", "攻略"],
    "美食 教程": ["美食", "教程"],
    "مطبخ שלום हिन्दी தமிழ்நாடு": ["مطبخ", "שלום", "हिन्दी", "தமிழ்நாடு"],
    "می‌خواهم ශ්‍රී": ["می‌خواهم", "ශ්‍රී"],
    "nba篮球2024年": ["nba", "篮球", "2024", "年"],
}


@pytest.mark.parametrize("title", WHOLE)
def test_words_are_whole_in_scripts_without_spaces(title: str) -> None:
    assert tokens(title) == WHOLE[title]


@settings(deadline=None)
@given(st.text(st.sampled_from("กำนุ้ำสาไทยลีมែខ្ក្តမြန်ဘ்தமிழ")))
def test_no_letter_is_parted_from_its_marks(text: str) -> None:
    """Every mark that follows a letter in the text follows it in a word."""
    text = unicodedata.normalize("NFC", text)
    pairs = {a + b for a, b in itertools.pairwise(text) if a.isalpha() and unicodedata.category(b)[0] == "M"}
    found = {a + b for word in tokens(text) for a, b in itertools.pairwise(word)}
    assert pairs <= found


def test_phrases_of_scripts_without_spaces_are_joined_without_one() -> None:
    found = count(
        [("红烧肉的做法", []), ("红烧肉真好吃", []), ("红烧肉 教程", []), ("红烧肉 教程", []), ("红烧 教程", [])],
        1.0,
    )
    assert {"红烧肉", "红烧", "教程"} <= set(found.forms)
    assert not any("肉教" in form for form in found.forms)


MARKED = {
    "<Parasite> trailer": ["parasite", "trailer"],
    "I <3 robots": ["i", "3", "robots"],
    "<b>bold</b> move<br/>on": ["bold", "move", "on"],
    "<a href='https://example.org/x' target=_blank>soup</a>": ["soup"],
    "&lt;i&gt;soup&lt;/i&gt; caf&eacute; &#39;n&#x27; R&amp;amp;B": ["soup", "café", "n", "r", "b"],
    "<Time> at <video>noon</video>": ["time", "at", "noon"],
    "AT&T; Fish&regrets": ["at", "t", "fish", "regrets"],
    "<!-- gone --> <style>p {}</style>soup": ["soup"],
    "2 < 3 > 1 <i want> soup": ["2", "3", "1", "i", "want", "soup"],
}


@pytest.mark.parametrize("title", MARKED)
def test_only_markup_goes_and_entities_are_decoded(title: str) -> None:
    assert tokens(title) == MARKED[title]


def test_hashtags_are_split_where_texts_write_their_words_apart() -> None:
    rows = [("A repair café in town", ["repaircafe"]), ("My repair cafe", ["repaircafé", "repaircafe"])]
    rows += [("Repair cafe again", ["repaircafe"]), ("Minecraft: mine a craft", ["minecraft"])]
    rows += [
        ("Minecraft mine craft", ["minecraft"]),
        ("My world is my world", ["myworld"]),
        ("A world", ["myworld"]),
    ]
    rows += [("Life on a space station", ["lifeonaspacestation"])] * 2 + [("Unknown", ["streetfood"])] * 2
    found = count(rows, 1.0)
    assert {"repair cafe", "repair", "minecraft", "myworld", "space", "station", "streetfood"} <= set(found.forms)
    assert not {"repaircafe", "lifeonaspacestation", "mine craft"} & set(found.forms)
    held = found.matrix[:, [found.forms.index("repair cafe")]].toarray().ravel()
    assert held.tolist() == [1, 1, 1, *[0] * 8]


def test_likeness_is_symmetric_and_finds_repeats() -> None:
    pairs = [("game", "games"), ("knife", "knives"), ("cook", "cooking"), ("mini-world", "miniworld")]
    for a, b in pairs:
        one, two = (words.stem(a),), (words.stem(b),)
        assert words.alike(one, two)
        assert words.alike(two, one)
    for a, b in [("ramen", "broth"), ("cat", "dog"), ("music", "museum"), ("car", "card")]:
        assert not words.alike((words.stem(a),), (words.stem(b),)), (a, b)
    assert np.all([words.alike((w,), (w,)) for w in ("a", "ab", "abc", "abcd")])
