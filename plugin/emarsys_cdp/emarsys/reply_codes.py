"""
The reply codes of Emarsys: who is to blame, in words that a marketer understands, with the page that has them.

Emarsys uses a code for several things, so a meaning may ask for a phrase of the reply's text, and at HTTP 500 only the
codes of `PERMANENT_AT_500` mean what they mean elsewhere. The pages list more codes; those of endpoints that are not
called here are left out and count as unknown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum

from msgspec import Struct

_PAGES = "https://dev.emarsys.com/docs/core-api-reference/"
ROWS_PAGE = f"{_PAGES}cnyqzhdnbl7r2-http-200-errors"
REFUSALS_PAGE = f"{_PAGES}jir98la21pufy-http-400-errors"
OUTAGES_PAGE = f"{_PAGES}f7mqogni0568z-http-500-errors"
UPDATE_PAGE = "dev.emarsys.com, Update Contacts"

OK = 0
NO_CONTACT = 2008
"""There is no contact with the key value (both pages)."""

PERMANENT_AT_500 = frozenset(range(3001, 3007))
"""Errors of contact lists that stay errors although Emarsys may send them as HTTP 500 (`OUTAGES_PAGE`)."""


class Blame(Enum):
    """Who is to blame for an error, so what happens next."""

    ROW = "this row, or one row of a request that is refused as a whole: nothing helps it"
    SETTING = "a setting here or in Emarsys: no row of the request can be taken until it is mended"
    RACE = "another call that made the same contact at that moment: the row is sent again"
    EMARSYS = "Emarsys itself: the request is sent again"


class Meaning(Struct, frozen=True):
    """What a code says, if the reply's text has *phrase*; *words* may have the request's key `{field}` and `{list}`."""

    blame: Blame
    words: str
    source: str = REFUSALS_PAGE
    phrase: str = ""


_TOO_MANY = "the request has more contacts than Emarsys takes at once"
_NO_LIST = "there is no contact list {list} in Emarsys"
_NO_EVENT = "there is no such external event in Emarsys"
_EXISTS = "already exist"
_RACE = "another call created the same contact at this moment"

CODES: Mapping[int, tuple[Meaning, ...]] = {
    1: (Meaning(Blame.SETTING, "Emarsys does not know this address; check the number of the list or event"),),
    1000: (Meaning(Blame.ROW, _TOO_MANY),),
    1001: (Meaning(Blame.ROW, "a parameter is missing or invalid"),),
    1003: (Meaning(Blame.EMARSYS, "Emarsys had an internal error"),),
    1006: (Meaning(Blame.ROW, "a parameter is empty"),),
    1007: (Meaning(Blame.ROW, "Emarsys does not know a field of the request"),),
    1008: (
        Meaning(Blame.SETTING, _NO_LIST, phrase="contact list does not exist"),
        Meaning(Blame.ROW, "a field has a value that Emarsys does not take"),
    ),
    1009: (Meaning(Blame.SETTING, "Emarsys does not take this HTTP method at this address"),),
    1010: (Meaning(Blame.ROW, "Emarsys could not read the request"),),
    1016: (Meaning(Blame.ROW, "a value has to be a whole number"),),
    2001: (Meaning(Blame.EMARSYS, "Emarsys could not load its fields"),),
    2002: (Meaning(Blame.ROW, _TOO_MANY),),
    2003: (Meaning(Blame.SETTING, "Emarsys expects a list of values in the request"),),
    2004: (Meaning(Blame.SETTING, "field {field} cannot be the key by which contacts are found", ROWS_PAGE),),
    2005: (Meaning(Blame.ROW, "the value of key field {field} is missing or invalid", ROWS_PAGE),),
    2006: (
        Meaning(Blame.RACE, _RACE, phrase=_EXISTS),
        Meaning(Blame.ROW, "Emarsys has no field with a number that is used here", ROWS_PAGE),
    ),
    2007: (Meaning(Blame.ROW, "a value does not fit its field in Emarsys", ROWS_PAGE),),
    NO_CONTACT: (Meaning(Blame.ROW, "Emarsys has no contact with this value in field {field}", ROWS_PAGE),),
    2009: (Meaning(Blame.RACE, _RACE, UPDATE_PAGE),),
    2010: (Meaning(Blame.ROW, "several contacts have this value in field {field}; merge them in Emarsys", ROWS_PAGE),),
    2011: (Meaning(Blame.EMARSYS, "Emarsys had an internal error", OUTAGES_PAGE),),
    2012: (Meaning(Blame.ROW, "Emarsys has no contact with this id"),),
    2013: (Meaning(Blame.ROW, "Emarsys has no contact source with this id"),),
    2014: (Meaning(Blame.SETTING, "the request names no field to return"),),
    2015: (Meaning(Blame.SETTING, "field {field} is not indexed; Emarsys Support can index it"),),
    2016: (Meaning(Blame.SETTING, "the request asks for more rows than Emarsys gives"),),
    2020: (Meaning(Blame.SETTING, _NO_LIST, UPDATE_PAGE),),
    3001: (Meaning(Blame.SETTING, "the contact list has no name"),),
    3002: (Meaning(Blame.ROW, _TOO_MANY),),
    3003: (Meaning(Blame.SETTING, "Emarsys expects a list of values in the request"),),
    3004: (Meaning(Blame.SETTING, "the number or name of the contact list is invalid"),),
    3005: (Meaning(Blame.SETTING, "there is already a contact list of this name in Emarsys"),),
    3006: (Meaning(Blame.SETTING, _NO_LIST),),
    5001: (Meaning(Blame.SETTING, _NO_EVENT),),
    5002: (Meaning(Blame.SETTING, _NO_EVENT),),
    5004: (Meaning(Blame.SETTING, _NO_EVENT),),
    5005: (Meaning(Blame.SETTING, "the event starts no active program and no launched e-mail; connect it in Emarsys"),),
    5008: (Meaning(Blame.ROW, "the data of the event is larger than Emarsys takes"),),
    5009: (Meaning(Blame.ROW, "the data of the event is not valid JSON"),),
    5010: (Meaning(Blame.ROW, "the time of the event is not of the form 2007-03-01T13:00:00Z"),),
    5011: (Meaning(Blame.ROW, "the data of the event is not an object"),),
    7003: (Meaning(Blame.EMARSYS, "Emarsys takes no more requests at the moment", OUTAGES_PAGE),),
    10001: (
        Meaning(Blame.SETTING, "field {field} cannot be the key by which contacts are found", phrase="key id must be"),
        Meaning(Blame.ROW, _TOO_MANY, phrase="max. number"),
        Meaning(Blame.ROW, "a parameter is missing or invalid"),
    ),
}
"""What Emarsys says about a row (HTTP 200) or a whole request (HTTP 400, 404): the first meaning whose phrase fits."""

_TEXTS = (
    ("no contact found", NO_CONTACT),
    ("more contacts found", 2010),
    (_EXISTS, 2009),
    ("no value provided for key field", 2005),
    ("invalid key field id", 2004),
    ("invalid field id", 2006),
)
"""Codes of errors that come as text only, as `Invalid field id` does (`ROWS_PAGE`)."""

_LATER = re.compile(r"try again|temporar|internal error|database .*error|time(d )?[ -]?out|overload|too many requests")
"""Words with which Emarsys asks for another try in errors whose code is not known."""


def code_of(text: str) -> int | None:
    """Return the code that belongs to an error's text, if it is one of the known ones."""
    folded = text.casefold()
    return next((code for phrase, code in _TEXTS if phrase in folded), None)


def meaning_of(code: int | None, text: str) -> Meaning:
    """
    Return what an error of Emarsys means.

    An unknown one has been read and refused by Emarsys in its own words, and the pages class all that comes this way
    as permanent: it is the row's, unless the words ask for another try. An error that says nothing is Emarsys' own.
    """
    folded = text.casefold()
    for meaning in CODES.get(-1 if code is None else code, ()):
        if meaning.phrase in folded:
            return meaning
    if not text and code is None:
        return Meaning(Blame.EMARSYS, "Emarsys reports an error without saying which")
    if _LATER.search(folded):
        return Meaning(Blame.EMARSYS, "Emarsys asks for another try")
    return Meaning(Blame.ROW, "Emarsys refuses it")
