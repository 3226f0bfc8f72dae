"""Descriptions: unique, clean, in the items' words, about what the cluster is about."""

import itertools
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from byway.base import config, models
from byway.base.artifact import Outcome
from byway.interests import clarity, describe, keywords, tree
from byway.interests.terms import count
from byway.language import prompts
from tests.interests import planted, scripts

KEYWORD = re.compile(r"[^\W_]+(?:['-]+[^\W_]+)*(?: [^\W_]+(?:['-]+[^\W_]+)*)?")
TOPICS = {
    ("kitchen", "soup"): ["ramen", "broth", "noodles", "miso"],
    ("kitchen", "cake"): ["sourdough", "icing", "oven", "sponge"],
    ("stadium", "football"): ["goal", "striker", "penalty", "keeper"],
    ("stadium", "tennis"): ["racket", "serve", "volley", "wimbledon"],
}


def slices(n: int, sizes: tuple[int, int, int, int]) -> tree.Tree:
    """A tree over items in their own order, cut into nested slices of about equal length."""
    labels = [np.arange(n) * size // n for size in sizes]
    return tree.from_labels(labels)


def world(per: int = 24) -> tuple[list[str], list[list[str]]]:
    """Titles and hashtags of four topics, one after another; every title holds two of its topic's words."""
    rng = np.random.default_rng(0)
    titles, tags = [], []
    for (area, topic), vocabulary in TOPICS.items():
        for _ in range(per):
            one, two = rng.choice(vocabulary, 2, replace=False)
            titles.append(f"You won't believe this {one} with the best {two} in 2024!!")
            tags.append([area, topic] if rng.random() < 0.7 else [area])
    return titles, tags


def build(path: Path, name: str, titles: list[str], tags: list[list[str]], found: tree.Tree) -> Outcome:
    own = config.Descriptions()
    return describe.build(planted.work(path, name), own, planted.catalog(titles, tags), found, "smollm2-135m")


def test_planted_topics_are_named_in_their_words(tmp_path: Path) -> None:
    titles, tags = world()
    found = slices(len(titles), (2, 4, 12, 24))
    outcome = build(tmp_path, "d", titles, tags, found)
    names = describe.load(tmp_path / "d").names
    assert [len(level) for level in names] == [2, 4, 12, 24]
    for cluster, ((area, topic), vocabulary) in enumerate(TOPICS.items()):
        keywords = names[1][cluster].split(", ")
        assert 3 <= len(keywords) <= 5
        assert set(keywords) <= {*vocabulary, topic, area}
    assert "kitchen" in names[0][0]
    assert "stadium" in names[0][1]
    assert outcome.metrics["descriptions.unique"] == 1.0
    assert outcome.metrics["descriptions.unique_first"] == 1.0
    assert min(outcome.metrics["descriptions.coverage"][:2]) > 0.95
    assert outcome.gates["descriptions.unique"].passed


def test_two_builds_are_byte_identical_and_sorted(tmp_path: Path) -> None:
    titles, tags = world()
    found = slices(len(titles), (2, 4, 12, 24))
    for name in ("one", "two"):
        build(tmp_path, name, titles, tags, found)
    files = [tmp_path / name / "descriptions.parquet" for name in ("one", "two")]
    assert files[0].read_bytes() == files[1].read_bytes()
    table = pq.read_table(files[0])
    assert table.column_names == ["level", "cluster", "description", "keywords"]
    keys = list(zip(table["level"].to_pylist(), table["cluster"].to_pylist(), strict=True))
    assert keys == sorted(keys)
    joined = [", ".join(keywords) for keywords in table["keywords"].to_pylist()]
    assert joined == table["description"].to_pylist()


@settings(max_examples=40, deadline=None)
@given(
    titles=st.lists(
        st.one_of(
            st.text(max_size=30),
            st.lists(st.sampled_from(["ramen", "Ramen,", "\n", '"', "<b>", "broths", "broth", "足球", "🔥"])).map(
                " ".join
            ),
        ),
        min_size=16,
        max_size=50,
    )
)
@example(
    titles=[f"¨{word}" for word in sorted(["ramen", "broth", "miso", "oven"] * 4)]
)  # a spaced diacritic: a bare mark
def test_any_titles_give_unique_clean_names(titles: list[str]) -> None:
    found = slices(len(titles), (2, 4, 6, 12))
    terms = count([(title, []) for title in titles], 1.0)
    names = keywords.choose(terms, found, 4)
    everything = [tuple(sorted(own)) for level in names for own in level]
    assert len(set(everything)) == len(everything)
    for level in names:
        for own in level:
            assert 1 <= len(own) <= 5
            assert all(KEYWORD.fullmatch(word) for word in own)
            assert len(set(own)) == len(own)


def test_no_near_duplicates_inside_a_description() -> None:
    titles = ["game of games by gaming and gamer with puzzle"] * 8
    titles += ["cook for cooking by cooks and cooked with oven"] * 8
    terms = count([(title, []) for title in titles], 1.0)
    names = keywords.choose(terms, slices(16, (2, 4, 6, 8)), 4)
    assert [set(own) for own in names[0]] == [{"game", "puzzle"}, {"cook", "oven"}]


def test_clusters_without_words_take_their_parents_and_a_number() -> None:
    titles = ["ramen broth"] * 8 + ["🔥", "1999", "the", ""] * 2
    terms = count([(title, []) for title in titles], 1.0)
    names = keywords.choose(terms, slices(16, (2, 4, 6, 8)), 4)
    assert names[0] == [["ramen broth"], ["items", "2"]]
    flat = [", ".join(own) for level in names for own in level]
    assert len(set(flat)) == len(flat)


def test_clusters_of_the_same_words_still_differ() -> None:
    terms = count([("ramen broth noodles", [])] * 32 + [("goal", [])] * 32, 1.0)
    names = keywords.choose(terms, slices(64, (2, 4, 8, 16)), 3)
    flat = [frozenset(own) for level in names for own in level]
    assert len(set(flat)) == len(flat)


def test_a_word_in_one_item_is_not_chosen_before_one_in_many() -> None:
    titles = ["ramen"] * 10 + ["ramen zyzzyva"] + ["goal"] * 10 + ["goal zyzzyva"]
    terms = count([(title, []) for title in titles], 1.0)
    names = keywords.choose(terms, slices(22, (2, 4, 6, 8)), 4)
    assert names[0] == [["ramen"], ["goal"]]


def test_coverage_counts_items_with_a_keyword() -> None:
    terms = count([("ramen", []), ("ramen", []), ("broth", []), ("broth", [])], 1.0)
    found = slices(4, (1, 2, 2, 2))
    assert clarity.coverage(terms, found, 1, [["ramen"]]) == 0.5
    assert clarity.coverage(terms, found, 2, [["ramen"], ["ramen", "2"]]) == 0.5


def test_outline_is_indented_ordered_and_as_wide_as_asked() -> None:
    found = slices(8, (2, 4, 6, 8))
    names = describe.Descriptions(
        tuple([[f"name {level}-{c}" for c in range(m)] for level, m in enumerate((2, 4, 6, 8), 1)])
    )
    text = describe.outline(found, names, np.array([3.0, 1, 0, 0, 2, 2, 0, 0]), depth=2, width=60)
    lines = text.splitlines()
    assert [line.split()[1] for line in lines] == ["1-0", "2-0", "2-1", "1-1", "2-2", "2-3"]
    assert all(len(line) == 60 for line in lines)
    assert lines[0].startswith("name 1-0")
    assert lines[1].startswith("  name 2-0")
    assert lines[1].split()[-4:] == ["2", "items", "50.00", "%"]
    long = describe.Descriptions(tuple([["word " * 40] * m for m in (2, 4, 6, 8)]))
    assert all(len(line) == 80 for line in describe.outline(found, long, np.ones(8), width=80).splitlines())
    assert "nan" not in describe.outline(found, names, np.zeros(8))


def test_first_words_begin_differently_where_they_can() -> None:
    forms = ["martial arts", "martian", "moon", "marten"]
    choice = keywords._Choice
    first = keywords._first_words(
        [
            choice([0], [(3.0, 0), (1.0, 2)], []),
            choice([1], [(2.0, 1), (1.5, 2)], []),
            choice([3], [(2.5, 3)], []),
            choice([], [], []),
        ],
        {i: (form[:4], *form[4:]) for i, form in enumerate(forms)},
    )
    # Two beginnings for three: the third has no choice and keeps its own whichever way, and of the first two that
    # gives up its best which loses least by it.
    assert [forms[term] if term >= 0 else None for term in first] == ["martial arts", "moon", "marten", None]


def test_names_part_as_early_as_they_can_where_tokens_are_too_few() -> None:
    """In a script that a model reads in bytes all words begin with one token: the next one parts them."""
    spelt = {0: (7, 1, 1), 1: (7, 1, 2), 2: (7, 2, 1), 3: (7, 3, 1), 4: (7, 3, 1)}
    choices = [
        keywords._Choice(some, [(5.0 - i, t) for i, t in enumerate(some)], []) for some in ([0, 2], [1], [3])
    ]
    assert keywords._first_words(choices, spelt) == [2, 1, 3]
    same = [keywords._Choice([3, 4], [(2.0, 3), (1.0, 4)], [])] * 2
    assert sorted(keywords._first_words(same, spelt)) == [3, 4], "where tokens never part them, words do"


def test_names_of_words_in_bytes_are_short_and_part_at_the_first_letter() -> None:
    topics = ["சமையல் உணவு தோசை", "பந்து மைதானம் வீரர்", "இசை பாடல் ராகம்", "கோள் விண்வெளி நிலா"]
    found = count([("", np.delete(topics[i // 12].split(), i % 3).tolist()) for i in range(48)], 1.0)
    spell = keywords.spell_with("smollm2-135m")
    names = keywords.choose(found, slices(48, (2, 4, 8, 16)), 4, spell, 32)
    for own in names[1]:
        assert 1 <= len(own) <= 3
        assert len(own) == 1 or sum(len(word) + 1 for word in spell(own)) <= 33
    assert len({spell([own[0]])[0][:2] for own in names[1]}) == 4
    whole = keywords.choose(found, slices(48, (2, 4, 8, 16)), 4, spell, 1000)
    assert sum(map(len, whole[1])) > sum(map(len, names[1]))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), clusters=st.integers(1, 7), tokens=st.integers(1, 6))
def test_no_other_choice_of_first_words_begins_more_names_differently(
    seed: int, clusters: int, tokens: int
) -> None:
    rng = np.random.default_rng(seed)
    begins = rng.integers(0, tokens, 12)
    choices = []
    for _ in range(clusters):
        terms = rng.choice(12, rng.integers(1, 4), replace=False)
        choices.append(keywords._Choice(terms.tolist(), [(float(rng.random()), int(t)) for t in terms], []))
    first = keywords._first_words(choices, {i: (int(token), i) for i, token in enumerate(begins)})
    assert all(term in choice.keywords for term, choice in zip(first, choices, strict=True))
    most = max(len({begins[t] for t in way}) for way in itertools.product(*(c.keywords for c in choices)))
    assert len({begins[t] for t in first}) == most


def test_names_begin_with_different_tokens_of_the_language_model(tmp_path: Path) -> None:
    """Different words of one first token; where that is but a space, the next one counts."""
    tokenizer = models.load_tokenizer("smollm2-135m")
    spell = keywords.spell_with("smollm2-135m")
    one, other = spell(["zaalik", "zatuan"])
    assert one[0] == other[0], "no test without two words that begin alike"
    assert {len(tokens[0]) for tokens in spell(["计划", "dog"])} == {1, 2}
    rows = [("zaalik", "harbour"), ("zatuan", "violin"), ("glacier", "zaalik"), ("bakery", "zatuan")]
    titles = [rows[c][i % 2] for c in range(4) for i in range(40)] + ["noise"] * 160
    build(tmp_path, "d", titles, [[]] * 320, slices(320, (2, 8, 16, 32)))
    names = describe.load(tmp_path / "d").names[1]
    prompt = prompts.tokenise(names[:4], 2, tokenizer, prompts.ENDINGS["block"])
    assert len({answer[0] for answer in prompt.answers}) == 4


def test_any_word_of_a_name_may_stand_first_however_little_it_scores(tmp_path: Path) -> None:
    """Six clusters share their best word by far; each has one of its own, which two of its forty items hold."""
    own = [f"{2 * chr(97 + c)}gram" for c in range(20)]
    titles = [f"comedy {own[c]}" if i < 2 else "comedy" for c in range(6) for i in range(40)]
    titles += [own[c] for c in range(6, 20) for _ in range(40)]
    build(tmp_path, "d", titles, [[]] * 800, slices(800, (2, 20, 40, 80)))
    named = [name.split(", ") for name in describe.load(tmp_path / "d").names[1]]
    assert len({name[0] for name in named}) == 20
    assert all("comedy" in name for name in named[:6])


@pytest.mark.parametrize("script", scripts.TOPICS)
def test_names_are_the_topics_words_in_any_script(script: str, tmp_path: Path) -> None:
    titles, of = scripts.titles(script, 96)
    order = np.argsort(of, kind="stable")
    outcome = build(tmp_path, "d", [titles[i] for i in order], [[]] * 96, slices(96, (2, 8, 16, 24)))
    for name, topic in zip(describe.load(tmp_path / "d").names[1], scripts.TOPICS[script], strict=True):
        # Without blanks two words side by side may be a third: 海 and 風 are 海風.
        parts = name.split(", ") if script not in scripts.BLANK else name.replace(", ", "")
        assert all(part in topic for part in parts), name
    metrics = outcome.metrics
    assert metrics["descriptions.precision"][1] > 5 * metrics["descriptions.precision.chance"][1]
