"""Which column of a table is which of ours, by the names that tables elsewhere give them.

Owns the usual names. Case, blanks, hyphens and underscores do not count. It opens no file and reads no value.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["items", "events", "impressions"]

ITEM_COLUMNS = (
    "item", "title", "hashtags", "description", "creator", "duration", "thumbnail", "media", "created_at",
)  # fmt: skip
EVENT_COLUMNS = (
    "user", "item", "time", "order", "satisfaction", "watch_seconds", "source", "propensity",
)  # fmt: skip
IMPRESSION_COLUMNS = (
    "user", "item", "time", "arm", "satisfaction", "watch_seconds", "source", "share", "cluster", "novel", "sole",
    "answer",
)  # fmt: skip
OURS: dict[Kind, tuple[str, ...]] = {
    "items": ITEM_COLUMNS,
    "events": EVENT_COLUMNS,
    "impressions": IMPRESSION_COLUMNS,
}


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_ITEM = _names(
    "item itemid iid itemkey itemno videoid vid movieid filmid bookid isbn isbn13 isbn10 asin parentasin artistid "
    "trackid songid albumid articleid newsid storyid productid prodid sku stockcode goodsid gameid appid game "
    "animeid malid mangaid showid seriesid podcastid episodeid recipeid beerid jokeid placeid businessid gmapid "
    "poiid venueid courseid lectureid adid adgroupid postid contentid docid documentid paperid photoid imageid "
    "pinid clipid streamid channelid playlistid workid titleid"
)
_USUAL: dict[Kind, dict[str, tuple[str, ...]]] = {
    "items": {
        "item": (*_ITEM, *_names("id tmdbid imdbid movie film book product track song article")),
        "title": _names(
            "title name itemname itemtitle movietitle filmtitle booktitle videotitle producttitle productname "
            "prodname trackname tracktitle songname songtitle songtitle articletitle headline gamename gametitle "
            "appname animename animetitle coursetitle coursename recipename recipetitle businessname placename "
            "originaltitle primarytitle englishtitle artistname caption videocaption label game"
        ),
        "hashtags": _names(
            "hashtags hashtag tags tag genres genre categories category categoryname maincategory categoryid "
            "topictag topics topic keywords keyword subjects subject listedin shelves popularshelves tagnames "
            "section styles style"
        ),
        "description": _names(
            "description desc overview summary synopsis plot plotsynopsis abstract blurb about shortdescription "
            "longdescription detaildesc productdescription itemdescription bookdescription text body content"
        ),
        "creator": _names(
            "creator author authors bookauthor authorname artist artists artistname director directors brand store "
            "studio studios developer developers uploader channel channeltitle seller manufacturer singer authorid"
        ),
        "duration": _names("duration durationseconds durationsec durations lengthseconds videoduration"),
        "created_at": _names(
            "createdat createdtime created creationdate releasedate released releaseyear releasedat year "
            "yearofpublication publicationyear originalpublicationyear publicationdate publishedat publisheddate "
            "publishdate published pubdate pubyear uploaddate uploaddt uploadtime uploadedat firstairdate "
            "startyear dateadded date timestamp"
        ),
    },
    "events": {
        "user": _names(
            "user userid uid usr usrid useridx userkey reviewerid customerid customer memberid member visitorid "
            "accountid account personid person viewerid listenerid readerid playerid profileid clientid buyerid "
            "subscriberid steamid msno username reviewername reviewer visitor viewer deviceid cookieid anonymousid "
            "sessionid session reviewuserid"
        ),
        "item": (*_ITEM, *_names("tmdbid imdbid movie film book product track song article video artist")),
        "time": _names(
            "time timestamp ts date datetime eventtime eventtimestamp eventdate eventdatetime unixtime epoch "
            "unixreviewtime reviewtime reviewdate reviewtimestamp ratingtime ratingtimestamp ratingdate ratedat "
            "timestampms timems createdat created createdtime createddate creationdate when at servertime "
            "servertimestamp clickedat clicktime viewedat viewtime watchedat watchedon watchdate playedat "
            "listenedat purchasedat purchasedate purchasetime orderdate ordertime orderedat invoicedate "
            "transactiondate transactiontime tdat visittime visitedat checkintime utctime localtime readat "
            "dateread playtimestamp loggedat logtime requesttime impressiontime starttime "
            "startedat updatedat dateupdated dateadded submissiontime"
        ),
        "order": _names("order sequence seq sequencenumber"),
        "satisfaction": _names(
            "satisfaction rating ratings stars star starrating score overall overallrating userrating bookrating "
            "movierating itemrating myrating rate ratingvalue reviewrating reviewscore reviewoverall vote "
            "grade feedback preference liked like isliked islike thumbs thumbsup recommended isrecommended votedup "
            "isclick isclicked clicked click userscore watchratio watchshare playratio completionrate "
            "completionratio"
        ),
        "watch_seconds": _names("watchseconds watchtimeseconds secondswatched dwellseconds"),
        "source": _names("source"),
        "propensity": _names("propensity"),
    },
}
"""The usual names of each of our columns as `plain` gives them, the likeliest first."""
_USUAL["impressions"] = {
    **{name: _USUAL["events"][name] for name in ("user", "item", "time", "satisfaction", "source")},
    "arm": _names("arm variant group treatment bucket cell variation experimentgroup testgroup abgroup"),
    "watch_seconds": _names(
        "watchseconds watchtimeseconds secondswatched dwellseconds watchtime dwelltime playtime playseconds"
    ),
    "share": _names("share armshare allocation"),
    "cluster": _names("cluster interest topic category categoryname"),
    "novel": _names("novel isnovel new isnew novelty"),
    "sole": _names("sole issole soleimpression"),
    "answer": _names("answer answerid requestid impressionid"),
}

_COUNTS = _names(
    "playcount plays nplays listens listencount count counts cnt weight freq frequency hours playtime "
    "playtimeforever hoursplayed quantity qty views viewcount clicks times interactions value rank rating score"
)
"""Columns by which people sort their tables, and which say nothing of time."""


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """Which columns of a table are read as which of ours."""

    columns: dict[str, str]
    """Ours to theirs, of those that the table has."""
    unused: tuple[str, ...]
    """Theirs that nobody reads."""
    rivals: dict[str, tuple[str, ...]]
    """Other columns that could have been one of ours, by ours."""
    guessed: frozenset[str] = frozenset()
    """Ours that neither the map nor their own name says."""


def plain(name: str) -> str:
    """A name without what does not count.

    >>> plain("Book-ID"), plain("user_id"), plain(" reviewerID"), plain("review/userId")
    ('bookid', 'userid', 'reviewerid', 'reviewuserid')
    """
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def column_map(
    names: Sequence[str], kind: Kind, mapped: Mapping[str, str], shared: Collection[str] = ()
) -> ColumnMap:
    """Which of the columns called `names` is which of ours.

    What `mapped` says holds, and an empty name there says that ours is not to be read; then our own names; then
    the usual ones. For `item`, a name that both tables have (`shared`, as `plain` gives it) comes first.
    """
    columns = {ours: theirs for ours, theirs in mapped.items() if theirs and theirs in names}
    # A file beside the others may have our own names: the log that the service writes has.
    taken = set(columns.values())
    for ours in OURS[kind]:
        if ours in names and ours not in columns and mapped.get(ours, ours) and ours not in taken:
            columns[ours] = ours
    guessed: set[str] = set()
    rivals: dict[str, list[str]] = {}
    for ours in OURS[kind]:
        if ours in mapped or ours not in _USUAL[kind]:
            continue
        usual = list(_USUAL[kind][ours])
        if ours == "item":
            usual.sort(key=lambda name: name not in shared)
        free = [name for name in names if name not in columns.values() and plain(name) in usual]
        likely = sorted(free, key=lambda name: usual.index(plain(name)))
        if ours not in columns and likely:
            columns[ours] = likely.pop(0)
            guessed.add(ours)
        rivals[ours] = likely
    columns = {ours: columns[ours] for ours in OURS[kind] if ours in columns}
    unused = tuple(name for name in names if name not in columns.values())
    left = {ours: tuple(name for name in others if name in unused) for ours, others in rivals.items()}
    return ColumnMap(columns, unused, {ours: others for ours, others in left.items() if others}, frozenset(guessed))


def counting(names: Sequence[str]) -> list[str]:
    """Those of the names that count or rank something."""
    return [name for name in names if plain(name) in _COUNTS]


def in_words(read: ColumnMap) -> str:
    """One line: what is read as what, and what is not used."""
    renamed = [theirs if theirs == ours else f"{theirs} → {ours}" for ours, theirs in read.columns.items()]
    line = ", ".join(renamed) or "nothing is read"
    for ours, names in read.rivals.items():
        line += f" ({read.columns[ours]} is taken for {ours}, not {' nor '.join(names)})"
    if read.unused:
        shown = [" ".join(name.split())[:40] or "(no name)" for name in read.unused[:20]]
        more = f" and {len(read.unused) - 20} more" if len(read.unused) > 20 else ""
        line += f"; not used: {', '.join(shown)}{more}"
    return line
