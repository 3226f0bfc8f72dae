"""The words and phrases of items' texts, countable and readable.

Turns texts in any language into an items × terms matrix. A term is counted by its stem and shown in its most
frequent form. It does not know clusters.
"""

import re
import unicodedata
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

LONGEST = 24
"""Characters of a word; what is longer is an address, a code or a keyboard accident."""
FEWEST_FOR_A_PHRASE = 3
"""Items that must hold two words side by side before they count as a phrase."""

_CHATTER = """
4k able absolutely actually ago ah aha ahead ain ain't almost alone already alright amp answer anymore
anyone anything apart appear aren't arrive ask asked away bad badly basically beautiful began begin best
better big bit bookmark bring brought bye came can't catch certain certainly change channel check clip clips
close com come comes comment comments completely content continue cool couldn't couple crazy cut daily day
days definitely did didn't die different difficult directly do does doesn't doing don't done dr easily easy
edit em end ended ending enjoy enough entire ep episode episodes eps especially even ever everybody everyone
everything exactly extremely fact famous favorite favorites favourite favourites feel feeling fell felt
final finally find finish fit follow followers forget foryou foryoupage found free ft full fully fun fyp
gave get gets getting give given gives giving glad go goes going gone gonna good got gotta great guess guy
guys ha haha hahaha half happen happened happens happy hard hasn't haven't hd he'd he'll he's hear heard
hello help here's hey hi high hit hold hope hot hour hours how's http https huge huh i'd i'll i'm i've idea
immediately important impossible incredible inside instagram instead interesting isn't it'd it'll it's item
just keep keeps kind kinds knew know known knows large late later learn least leave left less let let's lets
level life like liked likes line list literally little ll lol long longer look looked looking looks lose
lost lot lots lovely loving made main make makes making man many matter mean means meet met min mine minute
minutes moment moments month months more mr mrs ms mustn't name named near nearly nee need needs never new
next nice nobody non normal nothing nsfw number obviously of off official often oh ok okay old omg one one's
ones only ooh open order original outside part parts pass past people people's perfect perhaps person pick
picture pictures place plan play playing playlist please plus point possible post present pretty probably
problem pt put quality question queue quick quickly quite ready real really reason recently recommend
recommended reel reels remember right run said same saw say saying says scene scenes second seconds see
seeing seen series set share she'd she'll she's short shorts should shouldn't show shows side simple simply
single slow small someone something sometimes soon sorry sort special st start started starts stay step stop
straight stuff sub subs subscribe such suddenly super sure surprise take taken takes taking talk tell terms
thank thanks that'll that's there's they'd they'll they're they've thing things think third though thought
three tiktok time times title today today's together told tomorrow tonight too took top total totally
trailer trend trending tried true truly try trying turn turned turns two type ultimate unable understand
update upload use used using usually ve version versions versus very via video videos view viral vlog vol vs
wait wanna want wanted wants wasn't watch watched watching watchlist way ways we'd we'll we're we've week
weeks went weren't what'll what's whatever when's where's who'd who'll who's whole whose why's will win wish
won won't word words work works worry worse worst worth would wouldn't wow wrong www yeah year years yes
yesterday yet yo you'd you'll you're you've yours youtube yuan
"""
_PARTICLES = """
aber al alla als an ao as au auf aus aux avec bei bin bist ce ces che chez com como con cui da dal dans das
dass de dei del della delle dem den der des di die dit dos du e ein eine einem einen einer el elle em en
entre er es est et eu fuer für gli het hoy ich ihr il ils in ist je la las le les leur lo los lui ma mais
mas me mein mes mi mit moi mon muy na nach nao ne nel nicht nie no non nos nous não o oder og on os ou où
par para pas per pero por pour pra qu que quel qui quoi se sein ser ses si sich sie sin sind sobre son su
sua sul sur så te toi ton tu ue um un una und une uno unos uns van vom von vor vous wie wir y yo zu zum zur
à é és été être
"""
STOP_WORDS = ENGLISH_STOP_WORDS | frozenset(_CHATTER.split()) | frozenset(_PARTICLES.split())
"""Function words of English and, the shortest, of its neighbours; words that tell nobody what an item is about."""


class _Cleaner(dict[int, str]):
    """For `str.translate`: letters, marks and digits stay, apostrophes become one kind, the rest is space."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if character in "'’‘ʼ":
            kept = "'"
        elif character in "-‐‑":
            kept = "-"
        elif unicodedata.category(character)[0] in "LMN" and not 0xFE00 <= code <= 0xFE0F:
            kept = character
        else:
            kept = " "
        self[code] = kept
        return kept


_CLEAN = _Cleaner()
_MARKUP = re.compile(r"<[^<>]{0,200}>|&#?\w{1,8};|https?://\S{1,400}|www\.\S{1,400}")
_ENDING = re.compile(r"(?<=...)(ing|ed|er|e)$")
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")
"""Scripts that are written without spaces between words: kana, Han, Thai, Lao, Burmese, Khmer."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Which item holds which term."""

    matrix: sparse.csr_array
    """int32 [n, terms], 1 where the item holds the term."""
    forms: list[str]
    """How each term is written: lower case, one or two words."""
    stems: list[tuple[str, ...]]
    """The stems of each term's words."""
    tagged: NDArray[np.float64]
    """[terms]: share of the term's occurrences that stand in hashtags."""


def read(rows: Iterable[tuple[str, Sequence[str]]], most: float, drop: Iterable[str] = ()) -> Terms:
    """Words and phrases of each row (its text, its hashtags) that at least two items hold, and at most `most`
    of all. Words in `drop` are read as if they said nothing.
    """
    text = _number(rows, frozenset(word.lower() for word in drop))
    stems = {stem(word): 0 for word in text.words}
    stems = {name: i for i, name in enumerate(stems)}
    stem_of = np.fromiter((stems[stem(word)] for word in text.words), np.int64, len(text.words))
    unspaced = np.fromiter((bool(_UNSPACED.search(word)) for word in text.words), bool, len(text.words))
    n, size = text.rows, len(stems)

    said = np.flatnonzero(text.word >= 0)
    single = _occurrences(stem_of[text.word[said]], text.row[said], text.tagged[said], n, 2, most)
    # Neighbours in one part of a row: parts are closed by a token that says nothing.
    pair = said[:-1][np.diff(said) == 1]
    left, right = text.word[pair], text.word[pair + 1]
    phrase = (stem_of[left] != stem_of[right]) & ~unspaced[left]
    pair, left, right = pair[phrase], left[phrase], right[phrase]
    both = stem_of[left] * size + stem_of[right]
    double = _occurrences(both, text.row[pair], text.tagged[pair], n, FEWEST_FOR_A_PHRASE, most)
    names = list(stems)
    double = double.only([not _words_alike(names[k // size], names[k % size]) for k in double.keys.tolist()])

    word_forms = _commonest(stem_of[text.word[said]], text.word[said], text.words)
    kept = np.isin(both, double.keys)
    surfaces = left[kept] * len(text.words) + right[kept]
    distinct, surface = np.unique(surfaces, return_inverse=True)
    spelt = [" ".join(text.words[i] for i in divmod(int(key), len(text.words))) for key in distinct]
    phrase_forms = _commonest(both[kept], surface, spelt)
    return Terms(
        matrix=sparse.csr_array(sparse.hstack([single.matrix, double.matrix], format="csr")),
        forms=[word_forms[k] for k in single.keys.tolist()] + [phrase_forms[k] for k in double.keys.tolist()],
        stems=[(names[k],) for k in single.keys.tolist()]
        + [(names[k // size], names[k % size]) for k in double.keys.tolist()],
        tagged=np.concatenate([single.tagged, double.tagged]),
    )


@dataclass(frozen=True, slots=True)
class _Text:
    """All rows' tokens in one line."""

    words: list[str]
    """Distinct words that say something."""
    word: NDArray[np.int64]
    """[tokens]: number of the word, -1 for a token that says nothing and after each part."""
    row: NDArray[np.int64]
    """[tokens]: row of the token."""
    tagged: NDArray[np.bool_]
    """[tokens]: whether it stands in a hashtag."""
    rows: int


def _number(rows: Iterable[tuple[str, Sequence[str]]], drop: frozenset[str]) -> _Text:
    numbers: dict[str, int] = {}
    words: list[str] = []
    word, tagged, ends = array("i"), array("b"), array("q")
    for text, hashtags in rows:
        for at, part in enumerate((text, *hashtags)):
            for token in tokens(part):
                number = numbers.get(token)
                if number is None:
                    said = telling(token) and token not in drop
                    number = numbers[token] = len(words) if said else -1
                    if said:
                        words.append(token)
                word.append(number)
            word.append(-1)
            tagged.extend([at > 0] * (len(word) - len(tagged)))
        ends.append(len(word))
    lengths = np.diff(np.frombuffer(ends, np.int64), prepend=0) if ends else np.zeros(0, np.int64)
    return _Text(
        words,
        np.frombuffer(word, np.int32).astype(np.int64) if word else np.zeros(0, np.int64),
        np.repeat(np.arange(len(ends)), lengths),
        np.frombuffer(tagged, np.int8).astype(bool) if tagged else np.zeros(0, bool),
        len(ends),
    )


@dataclass(frozen=True, slots=True)
class _Occurrences:
    keys: NDArray[np.int64]
    """[kept]: what was counted, ascending."""
    matrix: sparse.csr_array
    """int32 [n, kept]."""
    tagged: NDArray[np.float64]
    """[kept]: share of the rows that hold it in a hashtag."""

    def only(self, wanted: list[bool]) -> "_Occurrences":
        kept = np.flatnonzero(wanted)
        return _Occurrences(self.keys[kept], sparse.csr_array(self.matrix[:, kept]), self.tagged[kept])


def _occurrences(
    keys: NDArray[np.int64],
    rows: NDArray[np.int64],
    tagged: NDArray[np.bool_],
    n: int,
    fewest: int,
    most: float,
) -> _Occurrences:
    """Which row holds which key, for keys that from `fewest` rows to share `most` of all rows hold."""
    distinct, key = np.unique(keys, return_inverse=True)
    cells, first = np.unique(rows * max(1, len(distinct)) + key, return_inverse=True)
    in_tag = np.bincount(first, tagged, len(cells)) > 0
    row, column = np.divmod(cells, max(1, len(distinct)))
    held = np.bincount(column, minlength=len(distinct))
    kept = np.flatnonzero((held >= fewest) & (held <= most * n))
    full = sparse.csr_array((np.ones(len(cells), np.int32), (row, column)), shape=(n, len(distinct)))
    share = np.bincount(column, in_tag, len(distinct))[kept] / held[kept]
    return _Occurrences(distinct[kept], sparse.csr_array(full[:, kept]), share)


def _commonest(keys: NDArray[np.int64], forms: NDArray[np.int64], spelt: list[str]) -> dict[int, str]:
    """For each key its most frequent form; of equals the first in the alphabet."""
    cells, counts = np.unique(keys * max(1, len(spelt)) + forms, return_counts=True)
    found: dict[int, tuple[int, str]] = {}
    for cell, count in zip(cells.tolist(), counts.tolist(), strict=True):
        key, form = divmod(cell, len(spelt))
        best = found.get(key)
        offer = (-count, spelt[form])
        if best is None or offer < best:
            found[key] = offer
    return {key: form for key, (_, form) in found.items()}


def tokens(text: str) -> list[str]:
    """Lower-case words of letters, marks and digits with inner hyphens and apostrophes.

    A run of more than four letters of a script without spaces becomes its pairs of neighbours.

    >>> tokens("<b>Dad's</b> BBQ-ribs, 2nd try!! 🔥")
    ['dad', 'bbq-ribs', '2nd', 'try']
    >>> tokens("红烧肉的做法")
    ['红烧', '烧肉', '肉的', '的做', '做法']
    """
    text = unicodedata.normalize("NFKC", _MARKUP.sub(" ", text)).lower()
    found: list[str] = []
    for run in text.translate(_CLEAN).split():
        word = run.strip("'-").removesuffix("'s")
        if len(word) > 4 and _UNSPACED.search(word):
            found.extend(word[i : i + 2] for i in range(len(word) - 1))
        elif word:
            found.append(word)
    return found


def telling(word: str) -> bool:
    """Whether a word may stand in a description: letters enough, not too long, not chatter.

    >>> [telling(w) for w in ("ramen", "the", "2019", "x", "1080p", "面")]
    [True, False, False, False, False, True]
    """
    letters = sum(character.isalpha() for character in word)
    digits = sum(character.isdigit() for character in word)
    if letters == 0 or digits >= letters or len(word) > LONGEST:
        return False
    if letters < 2 and not _UNSPACED.search(word):
        return False
    return word not in STOP_WORDS


def stem(word: str) -> str:
    """The word without its English plural (Harman 1991, the S stemmer, with f and v as one); never shown.

    >>> [stem(w) for w in ("noodles", "puppies", "puppy", "movie", "movies", "knife", "knives", "boss", "buses")]
    ['noodle', 'puppy', 'puppy', 'movy', 'movy', 'knif', 'knif', 'boss', 'bus']
    """
    if len(word) >= 4 and word.endswith("s") and not word.endswith(("us", "ss", "is")):
        word = word[:-2] if word.endswith(("ches", "shes", "xes", "sses", "zes", "uses")) else word[:-1]
    if len(word) >= 4:
        word = word.removesuffix("e") if word.endswith(("fe", "ve")) else word
        word = word[:-1] + "f" if word.endswith("v") else word
        word = word[:-2] + "y" if word.endswith("ie") else word
    return word


def alike(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    """Whether two terms (by their stems) would repeat each other in one description.

    They share a word, one word is inside another, two words begin alike, or one is the other misspelt.

    >>> alike(("street", "food"), ("food",)), alike(("animation",), ("animated",)), alike(("cat",), ("dog",))
    (True, True, False)
    >>> alike(("minecraft",), ("minectaft",)), alike(("king", "glory"), ("kingsglory",))
    (True, True)
    """
    if len(a) + len(b) > 2 and _words_alike("".join(a), "".join(b)):
        return True
    return any(_words_alike(x, y) for x in a for y in b)


def _words_alike(a: str, b: str) -> bool:
    short, long = sorted((a.replace("-", ""), b.replace("-", "")), key=len)
    if short == long or _ENDING.sub("", short) == _ENDING.sub("", long):
        return True
    if len(short) < 4:
        return False
    if short in long:
        return True
    common = next((i for i, (x, y) in enumerate(zip(short, long, strict=False)) if x != y), len(short))
    if common >= 5 and common >= 0.7 * len(short):
        return True
    # Seven letters, of which one may be wrong: 2·6/14 = 0.857.
    return len(short) >= 6 and short[0] == long[0] and SequenceMatcher(None, short, long).ratio() >= 0.85
