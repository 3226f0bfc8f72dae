"""Words out of titles as people and machines write them, in any script.

Owns what is markup, where a word begins and ends, and which words say nothing. It does not know items.
"""

import html
import re
import unicodedata
from html.entities import html5

from icu4py.breakers import WordBreaker
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

LONGEST = 24
"""Characters of a word; what is longer is an address, a code or a keyboard accident."""
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
_HAN_PARTICLES = """
的 了 是 我 你 他 她 它 在 有 不 就 都 这 那 也 和 与 及 很 还 又 吗 呢 吧 啊 呀 哦 哈 着 过 个
一 二 两 三 被 把 让 给 对 从 到 为 以 会 能 要 想 说 看 去 来 上 下 里 中 后 前 最 更 太 真 没
什么 怎么 我们 你们 他们 自己 这个 那个 一个 可以 就是 没有 不是 时候
"""
STOP_WORDS = (
    ENGLISH_STOP_WORDS
    | frozenset(_CHATTER.split())
    | frozenset(_PARTICLES.split())
    | frozenset(_HAN_PARTICLES.split())
)
"""Function words of English and, the shortest, of its neighbours; words that tell nobody what an item is about."""


class _Cleaner(dict[int, str]):
    """For `str.translate`: letters, marks, digits, joiners stay, apostrophes become one kind, the rest is space."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if character in _JOINERS:
            kept = character
        elif character in "'’‘ʼ":
            kept = "'"
        elif character in "-‐‑":
            kept = "-"
        elif unicodedata.category(character)[0] in "LMN" and not 0xFE00 <= code <= 0xFE0F:
            kept = character
        else:
            kept = " "
        self[code] = kept
        return kept


_JOINERS = "\u200c\u200d"
"""Inside Persian, Malayalam or Sinhala words they are part of the spelling."""
_CLEAN = _Cleaner()
_TAGS = """
a abbr article aside audio b big blockquote body br button caption center cite code dd del div dl dt em embed
figure font footer form h1 h2 h3 h4 h5 h6 head header hr html i iframe img input ins kbd label li link main mark
meta nav object ol option p param pre q s script section select small source span strike strong style sub sup
table tbody td textarea tfoot th thead title tr tt u ul video wbr
"""
_ATTRIBUTE = r"""\s+[\w:-]+\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s"'<>]+)"""
_MARKUP = re.compile(
    rf"</?(?:{'|'.join(_TAGS.split())})(?:{_ATTRIBUTE}){{0,20}}\s*/?>|<!--[^<>]{{0,200}}-->"
    r"|https?://\S{1,400}|www\.\S{1,400}",
    re.IGNORECASE,
)
"""Elements of HTML as they are written, and addresses: <Parasite> is a film and I <3 robots an opinion."""
_ENTITY = re.compile(r"&(#\d{1,7};|#x[0-9a-f]{1,6};|\w{1,31};)", re.IGNORECASE)
UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")
"""Scripts that are written without spaces between words: kana, Han, Thai, Lao, Burmese, Khmer."""
_HIRAGANA = re.compile(r"[\u3040-\u309f]{1,3}")
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_KATAKANA_LETTER = re.compile(r"[\u30a0-\u30ff]")


def tokens(text: str) -> list[str]:
    """Lower-case words of letters, marks and digits with inner hyphens and apostrophes.

    Where a script has no spaces between words, ICU's dictionaries and rules part them (UAX 29).

    >>> tokens("<b>Dad's</b> BBQ-ribs &amp; <Parasite>, 2nd try!! I <3 it 🔥")
    ['dad', 'bbq-ribs', 'parasite', '2nd', 'try', 'i', '3', 'it']
    >>> tokens("红烧肉的做法"), tokens("ฟุตบอลสนาม"), tokens("料理ラーメン")
    (['红烧', '肉', '的', '做法'], ['ฟุตบอล', 'สนาม'], ['料理', 'ラーメン'])
    """
    text = unicodedata.normalize("NFKC", _MARKUP.sub(" ", _decoded(text))).lower()
    found: list[str] = []
    for run in text.translate(_CLEAN).split():
        word = run.strip("'-" + _JOINERS).removesuffix("'s")
        if UNSPACED.search(word):
            found.extend(_parted(word))
        elif word:
            found.append(word)
    return found


def _decoded(text: str) -> str:
    """The text with its HTML entities as the characters that they stand for, also where they were encoded twice."""
    for _ in range(2):
        if "&" not in text:
            break
        text = _ENTITY.sub(_letter, text)
    return text


def _letter(entity: re.Match[str]) -> str:
    name = entity[1]
    return html.unescape(entity[0]) if name[0] == "#" else html5.get(name, entity[0])


def _parted(run: str) -> list[str]:
    """The words of a run of letters without spaces; a katakana letter left over belongs to the word before it."""
    words: list[str] = []
    for piece in WordBreaker(run, "root"):
        word = piece.strip("'-" + _JOINERS)
        if words and _KATAKANA_LETTER.fullmatch(word) and _KATAKANA_LETTER.match(words[-1][-1]):
            words[-1] += word
        elif any(unicodedata.category(letter)[0] in "LN" for letter in word):
            words.append(word)
    return words


def telling(word: str) -> bool:
    """Whether a word may stand in a description: letters enough, not too long, not chatter.

    >>> [telling(w) for w in ("ramen", "the", "2019", "x", "1080p", "猫", "の", "ます", "的")]
    [True, False, False, False, False, True, False, False, False]
    """
    letters = sum(character.isalpha() for character in word)
    digits = sum(character.isdigit() for character in word)
    if letters == 0 or digits >= letters or len(word) > LONGEST:
        return False
    if _HIRAGANA.fullmatch(word) or (letters < 2 and not _HAN.fullmatch(word)):
        return False
    return word not in STOP_WORDS
