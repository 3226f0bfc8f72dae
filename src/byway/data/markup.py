"""Text without markup: what a browser would show of it.

Knows HTML's elements and entities. A title in angle brackets is no element: `<Parasite> trailer` stays as it is.
"""

import re
from html import unescape

_BARE = (
    "abbr|acronym|b|bdi|bdo|blockquote|br|col|colgroup|dd|del|dfn|div|dl|dt|em|fieldset|figcaption|h[1-6]|hr|html|i|"
    "iframe|img|kbd|li|noscript|ol|p|param|pre|rp|rt|ruby|samp|script|span|strong|sup|svg|tbody|td|textarea|tfoot|"
    "th|thead|tr|tt|u|ul|var|wbr"
)
"""Elements whose names are no words: a tag of theirs is markup wherever it stands."""
_WORDS = (
    "a|address|article|aside|audio|big|body|button|canvas|caption|center|cite|code|data|details|dialog|embed|figure|"
    "font|footer|form|frame|head|header|input|ins|label|legend|link|main|map|mark|menu|meta|meter|nav|object|option|"
    "output|picture|progress|q|s|search|section|select|slot|small|source|strike|style|sub|summary|table|template|"
    "time|title|track|video"
)
"""Elements whose names are words: `<Time>` is markup only with attributes, a slash, or a closing tag after it."""
_VALUE = r"""(?:"[^"<>]{0,400}"|'[^'<>]{0,400}'|[^\s"'<>]{1,400})"""
_ATTRIBUTES = rf"(?:\s+[\w:-]{{1,40}}\s*=\s*{_VALUE}|\s+(?:allowfullscreen|async|defer|hidden|nowrap)){{1,12}}"
_TAGS = re.compile(
    # What scripts and comments hold is not shown.
    r"<(script|style)\b[^<>]{0,400}>.{0,4000}?</\1\s*>|<!--.{0,4000}?-->|<!doctype[^<>]{0,200}>"
    rf"|</?(?:{_BARE})(?:{_ATTRIBUTES})?\s*/?>"
    rf"|<(?:{_WORDS})(?:{_ATTRIBUTES}\s*/?|\s*/)>|</(?:{_WORDS})\s*>"
    rf"|<({_WORDS})>(?=.{{0,4000}}?</\2\s*>)",
    re.IGNORECASE | re.DOTALL,
)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
DEPTH = 3
"""Times that entities are decoded at the most: text that went through two forms has `&amp;amp;`."""


def plain(text: str) -> str:
    """The text with entities decoded and a space in the place of each tag.

    >>> plain("<b>Q&amp;amp;A</b>: caf&eacute;<br/>and <a href='x'>more</a>")
    ' Q&A : café and  more '
    >>> plain("<Parasite> trailer, I <3 robots, 2 < 3 > 1, <Time> and AT&T;")
    '<Parasite> trailer, I <3 robots, 2 < 3 > 1, <Time> and AT&T;'
    """
    for _ in range(DEPTH):
        if "&" not in text:
            break
        text = _ENTITY.sub(lambda found: unescape(found.group()), text)
    return _TAGS.sub(" ", text) if "<" in text else text
