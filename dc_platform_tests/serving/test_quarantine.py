"""Quarantine over HTTP: figures that add up, bytes as they were sent, pages that are safe to open."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from dc_platform.contracts.ops_tables import REPLAYS
from dc_platform.contracts.reasons import REMEDIES, Reason
from dc_platform.contracts.rejects import Reject
from dc_platform.lake.replays import record_replays
from dc_platform.registry.tokens import Scope, Tokens
from dc_platform_tests.helpers.asgi import request
from dc_platform_tests.helpers.events import NOW
from dc_platform_tests.helpers.landing import CLOCK, quarantine
from dc_platform_tests.helpers.records import SOURCE, rejects_block, strange
from dc_platform_tests.helpers.serving import Served, view
from dc_platform_tests.helpers.serving_http import Door

NASTY = b"<script>alert(1)</script>\"'&{{ 7 * 7 }}"
REJECTS = [
    Reject.of(0, Reason.WRONG_TYPE, "Expected `str`", b'{"eventType":7}'),
    Reject.of(1, Reason.WRONG_TYPE, "Expected `str`", b'{"eventType":8}'),
    Reject.of(2, Reason.WRONG_TYPE, "Expected `str`", b'{"eventType":9}'),
    Reject.of(3, Reason.NOT_UTF8, "not UTF-8", b"\xff\x00\xfe"),
    Reject.of(4, Reason.MALFORMED_JSON, NASTY.decode(), NASTY),
]


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Door:
    served = Served(tmp_path_factory.mktemp("served"))
    served.view = view(served.lake, [rejects_block(REJECTS, 0), strange(b"nonsense", 1)])
    ids = [row_id for _, row_id in quarantine(served.lake)]
    served.lake.ensure(REPLAYS)
    rows = [_replay(ids[0], 0, "replayed"), _replay(ids[1], 0, "rejected")]
    # Of a body that holds two events one got through, then the other.
    rows += [_replay(ids[2], n, result) for n, result in ((0, "known"), (1, "rejected"))]
    record_replays(served.lake, rows, CLOCK.date())
    record_replays(served.lake, [_replay(ids[2], 1, "replayed")], CLOCK.date())
    return Door(served)


def _replay(quarantine_id: str, index: int, result: str) -> dict[str, Any]:
    now = datetime.now(UTC)
    about = {"tenant_id": "default", "source_id": SOURCE, "run": "r", "replayed_at": now}
    why = {"reason_now": "wrong_type"} if result == "rejected" else {}
    return (
        about
        | why
        | {
            "quarantine_id": quarantine_id,
            "event_index": index,
            "result": result,
            "reason": "wrong_type",
        }
    )


def get(door: Door, path: str = "", **query: Any) -> httpx.Response:
    return request(door.app, "GET", f"/api/v1/quarantine{path}", params=query, headers=door.headers)


def test_counts_add_up_by_reason_source_day_and_state(door: Door) -> None:
    found = get(door).json()
    totals = {name: found[name] for name in ("count", "open", "replayed", "failing")}
    assert totals == {"count": 6, "open": 3, "replayed": 2, "failing": 1}
    day = CLOCK.date().isoformat()
    groups = {(g["reason"], g["sourceId"]): g for g in found["groups"]}
    assert set(groups) == {
        ("wrong_type", SOURCE),
        ("not_utf8", SOURCE),
        ("malformed_json", SOURCE),
        ("malformed_json", None),
    }
    assert groups["wrong_type", SOURCE] == {
        **{"reason": "wrong_type", "sourceId": SOURCE, "day": day},
        **{"count": 3, "open": 0, "replayed": 2, "failing": 1},
    }
    assert found["groups"][0]["count"] == 3


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({"reason": "wrong_type"}, 3),
        ({"source": SOURCE}, 5),
        ({"state": "replayed"}, 2),
        ({"state": "failing", "reason": "wrong_type"}, 1),
        ({"state": "open", "source": "nobody"}, 0),
        ({"schemaVersion": "1"}, 6),
        ({"schemaVersion": "2"}, 0),
        ({"from": CLOCK.date().isoformat(), "to": CLOCK.date().isoformat()}, 6),
        ({"to": "2024-05-16"}, 0),
    ],
)
def test_filters_choose(door: Door, query: dict[str, str], count: int) -> None:
    found = get(door, **query).json()
    assert found["count"] == count
    assert len(found["examples"]) == min(count, 5)


@pytest.mark.parametrize(
    "query",
    [{"reason": "no_such"}, {"state": "x"}, {"from": "soon"}, {"examples": "201"}, {"x": 1}],
)
def test_filters_that_are_none_are_refused_with_a_sentence(
    door: Door, query: dict[str, Any]
) -> None:
    answer = get(door, **query)
    assert answer.status_code == 422
    assert next(iter(query)) in answer.json()["detail"]


def test_a_row_has_its_bytes_and_what_became_of_it(door: Door) -> None:
    rows = get(door, examples=100).json()["examples"]
    by_length = {row["rawLength"]: row["quarantineId"] for row in rows}
    found = get(door, f"/{by_length[3]}").json()
    assert base64.b64decode(found["base64"]) == b"\xff\x00\xfe"
    assert (found["text"], found["state"], found["replays"]) == (None, "open", [])
    assert found["rawSha256"] == hashlib.sha256(b"\xff\x00\xfe").hexdigest()
    assert found["remedy"] == REMEDIES[Reason.NOT_UTF8]
    assert found["receivedAt"] == NOW
    raw = get(door, f"/{by_length[3]}", format="raw")
    assert raw.content == b"\xff\x00\xfe"
    assert raw.headers["content-type"] == "application/octet-stream"
    assert "attachment" in raw.headers["content-disposition"]
    assert get(door, f"/{by_length[len(NASTY)]}").json()["text"] == NASTY.decode()
    [failing] = get(door, state="failing").json()["examples"]
    [replay] = get(door, f"/{failing['quarantineId']}").json()["replays"]
    assert (replay["result"], replay["reason"]) == ("rejected", "wrong_type")
    assert get(door, "/nothing").status_code == 404


def test_another_tenant_sees_nothing(door: Door) -> None:
    theirs = Tokens(door.database).create(Scope.QUERY, tenant_id="other")
    headers = {"Authorization": f"Bearer {theirs}"}
    answer = request(door.app, "GET", "/api/v1/quarantine", headers=headers)
    assert (answer.json()["count"], answer.json()["groups"]) == (0, [])
    some = get(door).json()["examples"][0]["quarantineId"]
    one = request(door.app, "GET", f"/api/v1/quarantine/{some}", headers=headers)
    assert one.status_code == 404
    assert request(door.app, "GET", "/api/v1/quarantine").status_code == 401


# --- the page ---


def login(door: Door, token: str, target: str = "/quarantine", **headers: str) -> httpx.Response:
    data = {"token": token, "next": target}
    return request(door.app, "POST", "/login", data=data, headers=headers)


def cookie(door: Door) -> dict[str, str]:
    answer = login(door, door.headers["Authorization"].split()[1])
    assert answer.status_code == 303
    said = answer.headers["set-cookie"]
    assert "HttpOnly" in said
    assert "SameSite=strict" in said
    return {"Cookie": said.split(";")[0]}


def test_the_page_shows_the_figures_and_escapes_what_was_sent(door: Door) -> None:
    page = request(door.app, "GET", "/quarantine", headers=cookie(door))
    assert page.status_code == 200
    for shown in ("wrong_type", "still failing", REMEDIES[Reason.WRONG_TYPE], SOURCE):
        assert shown in page.text
    assert "<script>" not in page.text
    assert "&lt;script&gt;" in page.text
    assert "{{ 7 * 7 }}" in page.text
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'nonce-")
    assert "http" not in page.text.replace("http-equiv", "")


def test_a_page_of_one_row_shows_its_bytes(door: Door) -> None:
    headers = cookie(door)
    for example in get(door, examples=100).json()["examples"]:
        page = request(door.app, "GET", f"/quarantine/{example['quarantineId']}", headers=headers)
        assert page.status_code == 200
        assert "<script>" not in page.text
        assert example["reason"] in page.text
    assert request(door.app, "GET", "/quarantine/nothing", headers=headers).status_code == 404
    wrong = request(door.app, "GET", "/quarantine?reason=x", headers=headers)
    assert (wrong.status_code, "reason should be" in wrong.text) == (422, True)


@pytest.mark.parametrize("sent", [{}, {"Cookie": "dcp_token=dct_wrong"}])
def test_without_a_living_token_there_is_the_login(door: Door, sent: dict[str, str]) -> None:
    for path in ("/quarantine?reason=not_utf8", "/quarantine/some"):
        page = request(door.app, "GET", path, headers=sent)
        assert page.status_code == 401
        assert 'action="/login"' in page.text
        assert f'value="{path}"' in page.text


def test_a_wrong_token_is_refused_and_no_other_site_can_log_anybody_in(door: Door) -> None:
    assert login(door, "dct_wrong").status_code == 401
    token = door.headers["Authorization"].split()[1]
    assert login(door, token, **{"Sec-Fetch-Site": "cross-site"}).status_code == 403
    for target in ("https://evil.example/", "//evil.example", "/quarantine.evil", ""):
        assert login(door, token, target).headers["location"] == "/quarantine"
    assert login(door, token, "/quarantine?a=b").headers["location"] == "/quarantine?a=b"
    assert request(door.app, "POST", "/login", content=b"x" * 5000).status_code == 413


def test_the_cookie_opens_no_door_of_the_api(door: Door) -> None:
    answer = request(door.app, "GET", "/api/v1/quarantine", headers=cookie(door))
    assert answer.status_code == 401
    out = request(door.app, "POST", "/logout", headers=cookie(door))
    assert 'dcp_token=""' in out.headers["set-cookie"]
