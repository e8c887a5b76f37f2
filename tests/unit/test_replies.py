"""Replies of Emarsys: whatever comes, each row has one outcome, and nobody's error is another's."""

from __future__ import annotations

import json
import re
import tracemalloc
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emarsys_cdp.emarsys.outcomes import Delivered, Dropped, Retry
from emarsys_cdp.emarsys.replies import MAX_REASON, MAX_WAIT, Reply, Verdict, read_reply, rows_of
from emarsys_cdp.emarsys.reply_errors import MAX_REPLY_BYTES
from emarsys_cdp.emarsys.rows import part_of
from emarsys_cdp_hooks import Request

Json: TypeAlias = Any
NOW = 1_795_514_400_000
MB = 1_000_000
LIST_LIMIT = 10_000
"""Contacts of one list request (contact list API)."""

STATUSES = (100, 200, 201, 202, 204, 301, 400, 401, 403, 404, 408, 409, 413, 422, 423, 429, 500, 502, 503, 504, 599)
CODES = (0, 1, 1000, 1008, 2001, 2004, 2005, 2006, 2008, 2009, 2010, 3002, 3006, 4711, 5005, 10001)
ROW_CODES = ("2005", "2007", "2008", "2010", "2999")
ALIKE = (
    "a@x",
    "A@x",
    " a@x",
    "a@x ",
    "A@X",
    "a\u0301@x",
    "\u00e1@x",
    "1",
    "01",
    "1.0",
    "",
    "<NO_KEY_ID>",
    "b@x",
    "B@x",
)
"""Key values of which many look alike."""

key_values = st.one_of(st.sampled_from(ALIKE), st.text(max_size=8))


def upsert(keys: list[Json]) -> Request:
    """Return an upsert of contacts by e-mail address."""
    body = {"key_id": "3", "contacts": [{"3": key, "1": "x"} for key in keys]}
    return Request("PUT", "contact/?create_if_not_exists=1", body)


def trigger(keys: list[Json]) -> Request:
    """Return a batch of external events."""
    return Request("POST", "event/5678/trigger", {"key_id": "3", "contacts": [{"external_id": key} for key in keys]})


def add(keys: list[Json]) -> Request:
    """Return an addition to a contact list."""
    return Request("POST", "contactlist/969/add", {"key_id": "3", "external_ids": keys})


def delete(keys: list[Json]) -> Request:
    """Return a deletion of contacts."""
    return Request("POST", "contact/delete", {"key_id": "3", "3": keys})


KINDS = (upsert, trigger, add, delete)


def answer(data: Json, *, status: int = 200, code: Json = 0, text: Json = "OK") -> Reply:
    """Return a reply with Emarsys' envelope."""
    return Reply(status, {}, json.dumps({"replyCode": code, "replyText": text, "data": data}).encode())


def refuse(code: int, text: str, status: int = 400) -> Reply:
    """Return a refusal of a whole request."""
    return answer("", status=status, code=code, text=text)


json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=10),
        st.sampled_from((*ALIKE, *ROW_CODES, "OK", "No contact found", "already exists")),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.one_of(
                st.sampled_from((*ALIKE, *ROW_CODES, "key", "errorCode", "errorMsg", "code", "message", "0", "1")),
                st.text(max_size=5),
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)
data_values = st.one_of(
    json_values,
    st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("errors", "warnings", "ids", "connectedTo", "inserted_contacts"), json_values)
    ),
)
replies = st.builds(
    answer,
    data_values,
    status=st.sampled_from(STATUSES),
    code=st.one_of(st.sampled_from(CODES), json_values),
    text=st.one_of(st.text(), json_values),
)
raw_replies = st.builds(
    Reply,
    st.one_of(st.sampled_from(STATUSES), st.integers()),
    st.dictionaries(st.sampled_from(("x-ratelimit-reset", "content-type")), st.text()),
    st.one_of(st.binary(), st.binary().map(b'{"replyCode":0,"data":{"errors":'.__add__)),
)
requests = st.one_of(
    st.builds(lambda kind, keys: kind(keys), st.sampled_from(KINDS), st.lists(json_values, max_size=6)),
    st.builds(
        Request,
        st.sampled_from(("GET", "put", "POST")),
        st.one_of(
            st.sampled_from(("contact", "event/1/trigger", "contactlist/x/delete", "contact/getdata")), st.text()
        ),
        st.dictionaries(
            st.sampled_from(("key_id", "3", "contacts", "external_id", "external_ids", "keyId", "keyValues")),
            json_values,
        ),
    ),
)


@given(requests, st.one_of(replies, raw_replies), st.integers(min_value=0, max_value=2 * NOW))
@settings(deadline=None, database=None, max_examples=200)
def test_every_row_has_one_outcome_whatever_the_reply_is(request: Request, reply: Reply, now: int) -> None:
    """No reply raises; outcomes, flags and words are such that the caller can go by them."""
    verdict = read_reply(request, reply, now)

    assert len(verdict.outcomes) == len(rows_of(request))
    assert verdict.unauthorized == (reply.status == 401)
    assert all(isinstance(verdict.outcomes[row], Dropped) for row in verdict.missing)
    if verdict.divisible:
        assert len(verdict.outcomes) > 1
        assert not any(isinstance(outcome, Delivered) for outcome in verdict.outcomes)
    for outcome in verdict.outcomes:
        if isinstance(outcome, Delivered):
            assert 200 <= reply.status < 300 or request.path == "contact/delete"  # a missing contact is gone
        assert not (isinstance(outcome, Dropped) and verdict.outage)
        said = outcome.note if isinstance(outcome, Delivered) else outcome.reason
        assert said.isprintable()
        assert len(said) <= MAX_REASON
        if isinstance(outcome, Retry) and outcome.at is not None:
            assert outcome.lasting
            assert now < outcome.at <= now + MAX_WAIT


def marker(row: int) -> str:
    """Return what stands in the error of a row and nowhere else."""
    return f"trouble<{row}>"


SHAPES: dict[str, Callable[[list[tuple[str, str, str]]], Json]] = {
    "codes": lambda errors: {key: {code: text} for key, code, text in errors},
    "texts": lambda errors: {key: text for key, _, text in errors},
    "lists of texts": lambda errors: {key: [text] for key, _, text in errors},
    "nested": lambda errors: {key: {"errors": [{code: [text]}]} for key, code, text in errors},
    "named": lambda errors: {key: {"code": code, "message": text} for key, code, text in errors},
    "array": lambda errors: [{"key": key, "errorCode": int(code), "errorMsg": text} for key, code, text in errors],
    "array of texts": lambda errors: [{"errorMsg": text, "key": key, "errorCode": code} for key, code, text in errors],
    "array of maps": lambda errors: [{key: {code: text}} for key, code, text in errors],
}
"""The ways in which errors (key value, code, text) may be written."""


@st.composite
def batches(draw: st.DrawFn) -> tuple[Request, Json, list[str], set[str], bool]:
    """
    Return a request, the data of the reply, the rows' keys, the keys that failed, and whether the reply is plain.

    In a plain reply every error is written under the value as it was sent. Otherwise Emarsys may write it trimmed and
    in another case, unless another row is written exactly so, and there may be errors of nobody in the request.
    """
    kind = draw(st.sampled_from(KINDS))
    keys = draw(st.lists(key_values, min_size=1, max_size=6))
    failed = draw(st.sets(st.sampled_from(keys)))
    plain = draw(st.booleans())
    errors = []
    for key in failed:
        written = (
            key if plain else draw(st.sampled_from((key, key.strip(), key.lower(), key.strip().upper(), f"{key} ")))
        )
        written = key if written in keys else written
        errors.append((written, draw(st.sampled_from(ROW_CODES)), marker(keys.index(key))))
    if not plain:
        errors += [(f"nobody-{number}@y", "2007", marker(99)) for number in range(draw(st.integers(0, 2)))]
    data: dict[str, Json] = {"errors": SHAPES[draw(st.sampled_from(sorted(SHAPES)))](draw(st.permutations(errors)))}
    done = [number for number, key in enumerate(keys) if key not in failed]
    if draw(st.booleans()):
        data["ids"] = [str(number) if draw(st.booleans()) else number for number in draw(st.permutations(done))]
    return kind(keys), data, keys, failed, plain


PARTS_OF_ERRORS = {"key", "errorCode", "errorMsg"}
"""Members of an error in an array of errors."""


@given(batches())
@settings(deadline=None, database=None, max_examples=300)
def test_no_row_is_reported_as_anothers(batch: tuple[Request, Json, list[str], set[str], bool]) -> None:
    """A failed row is never delivered, a good one never dropped, and no reason has the words of another row's error."""
    request, data, keys, failed, plain = batch
    verdict = read_reply(request, answer(data), NOW)

    for row, (key, outcome) in enumerate(zip(keys, verdict.outcomes, strict=True)):
        said = outcome.note if isinstance(outcome, Delivered) else outcome.reason
        assert set(re.findall(r"trouble<\d+>", said)) <= {marker(keys.index(key))}, row
        if key not in failed:
            assert not isinstance(outcome, Dropped)
        elif isinstance(outcome, Delivered):
            assert request.path == "contact/delete"  # the contact was not there: it is gone
            assert "nothing to delete" in outcome.note
        if plain and "<NO_KEY_ID>" not in failed:
            certain = Delivered if key not in failed else (Dropped, Delivered)
            # In an array a contact that is called like a part of an error may be that part: it is sent again.
            doubtful = isinstance(data["errors"], list) and bool(PARTS_OF_ERRORS & set(keys))
            assert isinstance(outcome, certain) or (doubtful and isinstance(outcome, Retry))
    assert all(keys[row] in failed for row in verdict.missing)


@given(st.sampled_from(KINDS), st.lists(st.text(min_size=1), min_size=1, max_size=12, unique=True), st.data())
@settings(deadline=None, database=None)
def test_halves_find_the_rows_to_blame(
    kind: Callable[[list[Json]], Request], keys: list[str], data: st.DataObject
) -> None:
    """Where Emarsys refuses requests as a whole, sending halves drops exactly the bad rows and delivers the others."""
    bad = data.draw(st.sets(st.sampled_from(keys)))
    code = data.draw(st.sampled_from((2005, 2007, 2010, 5010, 10001, 4711)))
    found: dict[str, type] = {}

    def send(rows: list[str]) -> None:
        refused = bad.intersection(rows)
        reply = refuse(code, f"something is wrong with {min(refused)}") if refused else answer({"errors": []})
        verdict = read_reply(kind(list(rows)), reply, NOW)
        if verdict.divisible:
            send(rows[: len(rows) // 2])
            send(rows[len(rows) // 2 :])
        else:
            found.update({key: type(outcome) for key, outcome in zip(rows, verdict.outcomes, strict=True)})

    send(keys)

    assert found == {key: Dropped if key in bad else Delivered for key in keys}


@given(st.sampled_from(KINDS), st.lists(json_values, min_size=1, max_size=8), st.data())
@settings(deadline=None, database=None)
def test_a_part_of_a_request_has_the_rows_it_was_made_of(
    kind: Callable[[list[Json]], Request], keys: list[Json], data: st.DataObject
) -> None:
    """Outcomes of halves pair with the rows that the halves were cut at."""
    request = kind(keys)
    chosen = sorted(data.draw(st.sets(st.integers(0, len(keys) - 1), min_size=1)))

    assert rows_of(part_of(request, chosen)) == tuple(rows_of(request)[row] for row in chosen)


BOMBS = {
    "body": "{0}",
    "unknown part": '{{"replyCode":0,"other":{0}}}',
    "code": '{{"replyCode":{0}}}',
    "text": '{{"replyCode":0,"replyText":{0}}}',
    "data": '{{"replyCode":0,"data":{0}}}',
    "errors": '{{"replyCode":0,"data":{{"errors":{0}}}}}',
    "error of a row": '{{"replyCode":0,"data":{{"errors":{{"a@x":{0}}}}}}}',
    "error in an array": '{{"replyCode":0,"data":{{"errors":[{{"key":"a@x","errorMsg":{0}}}]}}}}',
    "warnings": '{{"replyCode":0,"data":{{"warnings":{0}}}}}',
    "ids": '{{"replyCode":0,"data":{{"ids":{0}}}}}',
}


@pytest.mark.parametrize("place", BOMBS)
@pytest.mark.parametrize("depth", [500, 100_000])
@pytest.mark.parametrize("brackets", [("[", "]"), ('{"a@x":', "}")])
def test_depth_bombs_do_no_harm(place: str, depth: int, brackets: tuple[str, str]) -> None:
    """A reply nested without end is no reply, or that part of it says nothing; no row is dropped for it."""
    bomb = brackets[0] * depth + "1" + brackets[1] * depth
    verdict = read_reply(upsert(["a@x"]), Reply(200, {}, BOMBS[place].format(bomb).encode()), NOW)

    (outcome,) = verdict.outcomes
    assert not isinstance(outcome, Dropped)
    assert isinstance(outcome, Retry) or "error" not in place


FLOODS = {
    "unknown part": ('{"replyCode":0,"other":[', "[],", "1]}"),
    "data": ('{"replyCode":0,"data":[', "[],", "1]}"),
    "errors": ('{"replyCode":0,"data":{"errors":[', "{},", "{}]}}"),
    "errors of one row": ('{"replyCode":0,"data":{"errors":{"a@x":[', "[],", "1]}}}"),
    "warnings": ('{"replyCode":0,"data":{"warnings":[', "{},", "{}]}}"),
    "ids": ('{"replyCode":0,"data":{"ids":[', "[],", "1]}}"),
    "text": ('{"replyCode":0,"replyText":"', "xxx", '"}'),
}


@pytest.mark.parametrize("place", FLOODS)
def test_a_long_reply_takes_no_memory(place: str) -> None:
    """Of a reply that is as long as one may be, no more is decoded than its few rows can need."""
    start, part, end = FLOODS[place]
    body = (start + part * ((MAX_REPLY_BYTES - 100) // len(part)) + end).encode()
    tracemalloc.start()
    verdict = read_reply(upsert(["a@x"]), Reply(200, {}, body), NOW)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 2 * len(body)  # a decoded part of it would take ten times its length
    assert not isinstance(verdict.outcomes[0], Dropped)


def test_a_reply_without_end_is_not_read() -> None:
    """A reply longer than any that Emarsys sends is tried again; nothing of it is decoded."""
    body = b'{"replyCode":0,"data":{"errors":{' + b'"a@x":{"2007":"x"},' * 5 * MB
    verdict = read_reply(upsert(["a@x"]), Reply(200, {}, body), NOW)

    assert verdict == Verdict((Retry("the reply of Emarsys cannot be read: it is too long (HTTP 200)"),), outage=True)


def test_the_longest_reply_that_is_meant_is_read() -> None:
    """The errors of 10,000 list members with keys of 255 characters are all read, each for its row."""
    keys = [f"{number:0250d}@x.at" for number in range(LIST_LIMIT)]
    errors = {key: {"2008": f"No contact found with the external id: 3 - {key}"} for key in reversed(keys)}
    verdict = read_reply(add(list(keys)), answer({"inserted_contacts": 0, "errors": errors}), NOW)

    assert verdict.missing == tuple(range(LIST_LIMIT))
    assert all(isinstance(outcome, Dropped) for outcome in verdict.outcomes)


def test_far_more_errors_than_rows_are_not_read() -> None:
    """A reply with many errors for each row is tried again; they are not gone through."""
    errors = [{"key": "a@x", "errorCode": 2007} for _ in range(200)]
    verdict = read_reply(upsert(["a@x"]), answer({"errors": errors}), NOW)

    assert verdict == Verdict(
        (Retry("the reply of Emarsys cannot be read: its errors are too many (HTTP 200)"),), outage=True
    )


def test_one_unreadable_error_spoils_its_row_only() -> None:
    """An error with bytes that are no text is tried again; the rows beside it have their outcomes."""
    body = b'{"replyCode":0,"data":{"errors":{"a@x":{"2007":"\xff"},"b@x":{"2007":"no"}}}}'
    verdict = read_reply(upsert(["a@x", "b@x", "c@x"]), Reply(200, {}, body), NOW)

    assert [type(outcome) for outcome in verdict.outcomes] == [Retry, Dropped, Delivered]


def test_a_byte_order_mark_is_no_obstacle() -> None:
    """JSON after a byte order mark is read."""
    verdict = read_reply(upsert(["a@x"]), Reply(200, {}, b'\xef\xbb\xbf {"replyCode":0,"data":{"ids":[1]}}'), NOW)

    assert verdict == Verdict((Delivered(),))


@pytest.mark.parametrize("rows", [1, 3])
def test_a_refusal_names_a_contact_to_that_contact_only(rows: int) -> None:
    """What Emarsys wrote about one value is shown for a row that was sent alone, never to several."""
    keys: list[Json] = ["ada@example.com", "bob@example.com", "cy@example.com"][:rows]
    verdict = read_reply(trigger(keys), refuse(2008, "No contact found with the external id: 3 - ada@example.com"), NOW)

    for key, outcome in zip(keys, verdict.outcomes, strict=True):
        assert isinstance(outcome, Dropped if rows == 1 else Retry)
        assert ("ada@example.com" in outcome.reason) == (rows == 1), key
