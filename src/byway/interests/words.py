"""The words of a text in any script, and which of them repeat each other.

Letters keep their marks. What is written without spaces is cut by ICU's dictionaries (Thai, Lao, Khmer, Burmese,
Chinese, Japanese). It does not know items or clusters.
"""

import re
import unicodedata
from difflib import SequenceMatcher

from icu4py.breakers import WordBreaker

from byway.data.markup import plain
from byway.interests.chatter import stop_words

LONGEST = 24
"""Characters of a word; what is longer is an address, a code or a keyboard accident."""
SINGLES = 4
"""Han characters that no dictionary joins and that stand side by side are one word up to this many: a name."""

JOINERS = "\u200c\u200d"
"""They shape letters inside words of Persian and the Indic scripts."""


class _Cleaner(dict[int, str]):
    """For `str.translate`: letters, marks and digits stay, apostrophes become one kind, the rest is space."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if character in "'’‘ʼ":
            kept = "'"
        elif character in "-‐‑":
            kept = "-"
        elif 0xFE00 <= code <= 0xFE0F or character in "\u00ad\u0640":
            # Choices of a glyph, places to break a line and lengthened lines say nothing, and part nothing.
            kept = ""
        elif character in JOINERS or unicodedata.category(character)[0] in "LMN":
            kept = character
        else:
            kept = " "
        self[code] = kept
        return kept


_CLEAN = _Cleaner()
_ADDRESS = re.compile(r"https?://\S{1,400}|www\.\S{1,400}")
_ENDING = re.compile(r"(?<=...)(ing|ed|er|e)$")
_UNSPACED = re.compile(
    r"[\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
    r"\uaa60-\uaa7f\U00020000-\U0003ffff]"
)
"""Scripts that are written without spaces between words: kana, Han, Thai, Lao, Burmese, Khmer."""
HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_KATAKANA = re.compile(r"([\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff]+)")


def runs(text: str) -> list[list[str]]:
    """Stretches of words that a phrase may be made of: without spaces no phrase goes beyond a blank.

    Words are lower-case, of letters, marks and digits with inner hyphens and apostrophes.

    >>> runs("<b>Dad's</b> BBQ-ribs, 2nd try!! 🔥")
    [['dad', 'bbq-ribs', '2nd', 'try']]
    >>> runs("红烧肉的做法")
    [['红烧', '肉', '的', '做法']]
    >>> runs("¨yes, ´-‘no")
    [['yes', 'no']]
    >>> runs("red wine, ラーメン 料理サッカー soup")
    [['red', 'wine'], ['ラーメン'], ['料理', 'サッカー'], ['soup']]
    """
    text = unicodedata.normalize("NFKC", _ADDRESS.sub(" ", plain(text))).lower()
    # Normalising takes two vowels apart that Thai and Lao write, and dictionaries know, as one.
    text = text.replace("\u0e4d\u0e32", "\u0e33").replace("\u0ecd\u0eb2", "\u0eb3")
    stripped = [_begun(word).strip("'-" + JOINERS) for word in text.translate(_CLEAN).split()]
    stretches: list[list[str]] = [[]]
    for word in stripped:
        if unspaced(word):
            stretches += [_cut(word), []]
        elif word := word.removesuffix("'s"):
            stretches[-1].append(word)
    return [words for words in stretches if words]


def _begun(word: str) -> str:
    """From its first letter or digit on: a mark in front of it, as ¨ and ´ become, shapes none."""
    for at, character in enumerate(word):
        if unicodedata.category(character)[0] in "LN":
            return word[at:]
    return ""


def unspaced(word: str) -> bool:
    """Whether it has a letter of a script that is written without spaces."""
    return not word.isascii() and _UNSPACED.search(word) is not None


def _cut(run: str) -> list[str]:
    """Words of a run without spaces. Katakana spells names and loans that no dictionary has: a run is a word."""
    words: list[str] = []
    for at, part in enumerate(_KATAKANA.split(run)):
        cut = [part] if at % 2 else [word.strip("'-" + JOINERS) for word in WordBreaker(part, "root")]
        single = False
        for word in cut:
            alone = len(word) == 1 and HAN.match(word) is not None and word not in stop_words()
            if alone and single and len(words[-1]) < SINGLES:
                words[-1] += word
            elif word:
                words.append(word)
            single = alone
    return words


def telling(word: str) -> bool:
    """Whether a word may stand in a description: letters enough, not too long, not chatter.

    >>> [telling(w) for w in ("ramen", "the", "2019", "x", "1080p", "面", "தீ")]
    [True, False, False, False, False, True, True]
    """
    letters = sum(unicodedata.category(character)[0] in "LM" for character in word)
    digits = sum(character.isdigit() for character in word)
    if letters == 0 or digits >= letters or len(word) > LONGEST or not any(map(str.isalpha, word)):
        return False
    if letters < 2 and not HAN.search(word):
        return False
    return word not in stop_words()


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
    if len(short) >= 2 and short in long and HAN.search(short):
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
