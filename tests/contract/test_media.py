"""`/media` and `/users/me/avatar`: status, code, rows and files of every route."""

import json
import zipfile
from collections.abc import Callable
from io import BytesIO
from typing import Any, BinaryIO

import pytest
from PIL import Image
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from app.config import get_settings
from app.errors import NotAuthenticated
from app.media import decoding
from app.media.decoding import Picture
from app.services import export, media
from tests import pictures
from tests.contract.answers import assert_refused, assert_unauthenticated
from tests.fixtures import Person

MakeMedia = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def _no_files(database: object) -> None:  # noqa: ARG001 - which empties the tables.
    media.remove_files()
    for file in get_settings().media_folder.rglob("*"):
        if file.is_file():
            file.unlink()


def upload(client: TestClient, caller: Person, content: bytes, **data: str) -> Any:
    return client.post("/media", files={"file": ("a.png", content)}, data=data, headers=caller.headers)


def rows(connection: Connection) -> list[Any]:
    shown = "owner_id, name, width, height, alt, post_id, position, is_avatar, unused_since IS NOT NULL"
    return [tuple(row) for row in connection.execute(text(f"SELECT {shown} FROM media ORDER BY id"))]


def removals(connection: Connection) -> set[str]:
    return {*connection.scalars(text("SELECT name FROM media_removals"))}


def test_an_uploaded_picture_is_stored_in_two_sizes_and_described(
    client: TestClient, connection: Connection, person: Person
) -> None:
    response = upload(client, person, pictures.png(1000, 500), alt="Four colors")

    made = response.json()
    name = made["url"].removeprefix("/media/files/").removesuffix(".webp")
    assert response.status_code == 201
    assert response.headers["Location"] == f"media/{made['id']}"
    assert made == {
        "id": made["id"], "url": f"/media/files/{name}.webp", "preview_url": f"/media/files/{name}-400.webp",
        "width": 1000, "height": 500, "alt": "Four colors", "blurhash": made["blurhash"], "content_type": "image/webp",
        "bytes": made["bytes"],
    }  # fmt: skip
    assert rows(connection) == [(person.id, name, 1000, 500, "Four colors", None, None, False, True)]
    assert removals(connection) == set()
    assert pictures.files() == {f"{name}.webp", f"{name}-400.webp"}
    whole, preview = (client.get(made[key]) for key in ("url", "preview_url"))
    assert made["bytes"] == len(whole.content) + len(preview.content)
    for file, size in ((whole, (1000, 500)), (preview, (400, 200))):
        picture = Image.open(BytesIO(file.content))
        assert (picture.format, picture.size, pictures.corners(picture)) == (
            "WEBP", size, [pictures.RED, pictures.GREEN, pictures.BLUE, pictures.WHITE],
        )  # fmt: skip
    assert client.get(f"/media/{made['id']}", headers=person.headers).json() == made
    assert client.get("/media", headers=person.headers).json() == [made]


def test_blurhash_is_that_of_the_published_algorithm(person: Person, make_media: MakeMedia) -> None:
    made = make_media(person, pictures.encoded(pictures.quarters(20, 10), "PNG"))

    # encode(pixels, 4, 3) of the library `blurhash` 1.1.5, of the same colors. WebP changes some by a little.
    expected = "L~Lqe9qSeXt%xh[XsBK0fK$4o1SL"
    assert made["blurhash"] == expected


@pytest.mark.parametrize("path", ["/media", "/media/1", "/users/me/avatar"])
def test_everything_but_the_files_needs_an_account(client: TestClient, path: str) -> None:
    method = "DELETE" if path.startswith("/users") else "GET"
    assert_unauthenticated(client.request(method, path))
    assert_unauthenticated(client.post("/media", files={"file": ("a.png", b"x" * 100_000)}))


def test_files_are_immutable_sandboxed_and_served_in_parts(
    client: TestClient, person: Person, make_media: MakeMedia
) -> None:
    url = make_media(person)["url"]
    whole = client.get(url)
    etag = whole.headers["ETag"]
    part = client.get(url, headers={"Range": "bytes=10-19"})
    end = client.get(url, headers={"Range": "bytes=-5", "If-Range": etag})
    changed = client.get(url, headers={"Range": "bytes=0-1", "If-Range": '"other"'})
    past = client.get(url, headers={"Range": f"bytes={len(whole.content)}-"})
    several = client.get(url, headers={"Range": "bytes=0-1,4-5"})
    unchanged = client.get(url, headers={"If-None-Match": etag})
    head = client.head(url)

    for response in (whole, part, end, changed, several, unchanged, head):
        assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in response.headers["Content-Security-Policy"]
        assert response.headers["ETag"] == etag
    assert (whole.status_code, whole.headers["Content-Type"]) == (200, "image/webp")
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    assert part.headers["Content-Range"] == f"bytes 10-19/{len(whole.content)}"
    assert (end.status_code, end.content) == (206, whole.content[-5:])
    assert (changed.status_code, changed.content) == (200, whole.content)
    assert (several.status_code, several.content) == (200, whole.content)
    assert (past.status_code, past.content) == (200, whole.content)
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", str(len(whole.content)))


@pytest.mark.parametrize(
    "path", ["/media/files/0123456789abcdef0123456789abcdef.webp", "/media/files/..%2f..%2fetc%2fpasswd",
             "/media/files/x", "/media/files/" + "0" * 32],
)  # fmt: skip
def test_files_that_do_not_exist_are_404(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 404


def test_a_repeated_upload_with_one_key_makes_one_picture(
    client: TestClient, connection: Connection, person: Person, make_media: MakeMedia
) -> None:
    first, again = (make_media(person, alt="A", **{"Idempotency-Key": "k"}) for _ in range(2))
    other = client.post(
        "/media",
        files={"file": ("a.png", pictures.png(10, 10))},
        headers=person.headers | {"Idempotency-Key": "k"},
    )
    media.remove_files()

    assert first == again
    assert_refused(other, 422, "idempotency_mismatch")
    assert len(rows(connection)) == 1
    assert len(pictures.files()) == 2
    assert removals(connection) == set()


def test_a_post_shows_its_pictures_in_order_everywhere(
    client: TestClient, connection: Connection, person: Person, make_media: MakeMedia
) -> None:
    first, second, third = (make_media(person, alt=alt) for alt in "abc")
    body = {"title": "t", "content": "c", "media_ids": [second["id"], first["id"]]}
    created = client.post("/posts", json=body, headers=person.headers)
    path = f"/posts/{created.json()['id']}"

    assert (created.status_code, created.json()["media"], created.headers["ETag"]) == (201, [second, first], '"1"')
    assert client.get(path, headers=person.headers).json()["Post"]["media"] == [second, first]
    for pages in ("/posts", "/posts?search=t", "/home", f"/posts?sort=top&owner_id={person.id}"):
        assert client.get(pages, headers=person.headers).json()[0]["Post"]["media"] == [second, first]

    kept = client.put(path, json={"title": "u", "content": "c"}, headers=person.headers)
    assert kept.json()["media"] == [second, first]
    changed = client.patch(path, json={"media_ids": [third["id"], second["id"]]}, headers=person.headers)
    assert (changed.status_code, changed.json()["media"], changed.headers["ETag"]) == (200, [third, second], '"3"')
    same = client.patch(path, json={"media_ids": [third["id"], second["id"]]}, headers=person.headers)
    assert same.headers["ETag"] == '"3"'
    assert [row[5:] for row in rows(connection)] == [
        (None, None, False, True), (created.json()["id"], 2, False, False), (created.json()["id"], 1, False, False),
    ]  # fmt: skip
    removed = client.patch(path, json={"media_ids": []}, headers=person.headers)
    assert removed.json()["media"] == []
    assert {row[5:] for row in rows(connection)} == {(None, None, False, True)}


def test_pictures_of_others_and_used_ones_are_refused_and_change_nothing(
    client: TestClient, connection: Connection, person: Person, other: Person, make_media: MakeMedia
) -> None:
    own, theirs, avatar = make_media(person)["id"], make_media(other)["id"], make_media(person)["id"]
    client.put("/users/me/avatar", json={"media_id": avatar}, headers=person.headers)
    body = {"title": "t", "content": "c"}
    used = client.post("/posts", json=body | {"media_ids": [own]}, headers=person.headers).json()["id"]
    before = rows(connection)

    for ids, status, code in (
        ([theirs], 404, "media_not_found"), ([own, 2**70], 404, "media_not_found"), ([own], 409, "media_in_use"),
        ([avatar], 409, "media_in_use"), ([1, 2, 3, 4, 5], 422, "validation_failed"),
    ):  # fmt: skip
        assert_refused(client.post("/posts", json=body | {"media_ids": ids}, headers=person.headers), status, code)
    assert_refused(client.put("/users/me/avatar", json={"media_id": own}, headers=person.headers), 409, "media_in_use")
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", "")):
        response = client.request(method, f"/media/{theirs}{path}", json={"alt": "x"}, headers=person.headers)
        assert_refused(response, 404, "media_not_found")
    assert client.get(f"/posts/{used}", headers=person.headers).status_code == 200
    assert (rows(connection), connection.scalar(text("SELECT count(*) FROM posts"))) == (before, 1)


def test_a_changed_or_deleted_picture_changes_the_post(
    client: TestClient, connection: Connection, person: Person, make_media: MakeMedia
) -> None:
    first, second = make_media(person), make_media(person)
    body = {"title": "t", "content": "c", "media_ids": [first["id"], second["id"]]}
    path = f"/posts/{client.post('/posts', json=body, headers=person.headers).json()['id']}"
    etag = client.get(path, headers=person.headers).headers["ETag"]

    described = client.patch(f"/media/{first['id']}", json={"alt": "A boat"}, headers=person.headers)
    shown = client.get(path, headers=person.headers)
    deleted = client.delete(f"/media/{second['id']}", headers=person.headers)
    after = client.get(path, headers=person.headers)

    assert (described.status_code, described.json()) == (200, first | {"alt": "A boat"})
    assert shown.json()["Post"]["media"] == [first | {"alt": "A boat"}, second]
    assert shown.headers["ETag"] != etag
    assert (deleted.status_code, after.json()["Post"]["media"]) == (204, [first | {"alt": "A boat"}])
    assert removals(connection) == {second["url"][13:45]}
    media.remove_files()
    assert (client.get(second["url"]).status_code, client.get(first["url"]).status_code) == (404, 200)
    assert removals(connection) == set()


def test_a_deleted_post_takes_its_pictures_along(
    client: TestClient, connection: Connection, person: Person, make_media: MakeMedia
) -> None:
    used, unused = make_media(person), make_media(person)
    body = {"title": "t", "content": "c", "media_ids": [used["id"]]}
    post_id = client.post("/posts", json=body, headers=person.headers).json()["id"]

    assert client.delete(f"/posts/{post_id}", headers=person.headers).status_code == 204
    media.remove_files()

    assert [row[1] for row in rows(connection)] == [unused["url"][13:45]]
    assert pictures.files() == {unused[key].rpartition("/")[2] for key in ("url", "preview_url")}


def test_a_deleted_account_leaves_no_row_and_no_file(
    client: TestClient, connection: Connection, person: Person, make_media: MakeMedia
) -> None:
    used, avatar, _ = (make_media(person) for _ in range(3))
    client.put("/users/me/avatar", json={"media_id": avatar["id"]}, headers=person.headers)
    client.post("/posts", json={"title": "t", "content": "c", "media_ids": [used["id"]]}, headers=person.headers)

    deleted = client.request("DELETE", "/users/me", headers=person.headers)
    media.remove_files()

    assert deleted.status_code == 204
    assert rows(connection) == []
    assert removals(connection) == set()
    assert pictures.files() == set()


def test_the_avatar_is_shown_on_the_profile_and_in_lists(
    client: TestClient, connection: Connection, person: Person, other: Person, make_media: MakeMedia
) -> None:
    first, second = make_media(person), make_media(person)
    client.put(f"/users/{person.id}/follow", headers=other.headers)

    def shown() -> list[Any]:
        me = client.get("/users/me", headers=person.headers).json()
        profile = client.get(f"/users/{person.id}", headers=other.headers).json()
        [followed] = client.get(f"/users/{other.id}/following", headers=other.headers).json()
        [found] = client.get(f"/users/search?q=user{person.id}", headers=other.headers).json()
        return [each["avatar"] for each in (me, profile, followed, found)]

    assert shown() == [None] * 4
    for picture in (first, first, second):
        answer = client.put("/users/me/avatar", json={"media_id": picture["id"]}, headers=person.headers)
        assert (answer.status_code, answer.json()) == (200, {"avatar": picture})
        assert shown() == [picture] * 4
    assert [row[7:] for row in rows(connection)] == [(False, True), (True, False)]
    described = client.patch(f"/media/{second['id']}", json={"alt": "Me"}, headers=person.headers).json()
    assert shown() == [described] * 4
    assert client.delete("/users/me/avatar", headers=person.headers).json() == {"avatar": None}
    assert shown() == [None] * 4
    impossible = client.put("/users/me/avatar", json={"media_id": 2**70}, headers=person.headers)
    assert_refused(impossible, 404, "media_not_found")


def test_a_moderator_deletes_the_picture_of_a_profile(
    client: TestClient, connection: Connection, person: Person, other: Person, moderator: Person, make_media: MakeMedia
) -> None:
    def remove(caller: Person, user_id: int) -> Any:
        return client.delete(f"/users/{user_id}/avatar", headers=caller.headers)

    kept, shown = make_media(person), make_media(person)
    of_moderator = make_media(moderator)
    for owner, picture in ((person, shown), (moderator, of_moderator)):
        client.put("/users/me/avatar", json={"media_id": picture["id"]}, headers=owner.headers)

    assert_refused(remove(other, person.id), 403, "not_authorized")
    assert_refused(remove(moderator, moderator.id), 403, "not_authorized")
    assert_refused(remove(moderator, moderator.id + 1000), 404, "user_not_found")
    for _ in range(2):
        removed = remove(moderator, person.id)
        assert (removed.status_code, removed.json()) == (200, {"avatar": None})

    assert client.get(f"/users/{person.id}", headers=other.headers).json()["avatar"] is None
    ids = connection.scalars(text("SELECT id FROM media ORDER BY id")).all()
    assert ids == [kept["id"], of_moderator["id"]]
    log = connection.execute(text("SELECT moderator_id, action, user_id, post_id FROM moderation_log"))
    assert [*map(tuple, log)] == [(moderator.id, "remove", person.id, None)]
    told = connection.execute(text("SELECT user_id, kind, actor_id, post_id FROM notifications"))
    assert [*map(tuple, told)] == [(person.id, "moderation", None, None)]


def test_pictures_past_the_quota_are_refused_and_leave_no_file(
    client: TestClient, connection: Connection, person: Person, make_media: MakeMedia, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_media(person)
    files = pictures.files()
    for setting in ("media_max_pictures", "media_quota_bytes"):
        with monkeypatch.context() as patch:
            patch.setattr(get_settings(), setting, 1)
            assert_refused(upload(client, person, pictures.png()), 409, "quota_exceeded")
    assert len(rows(connection)) == 1
    assert (pictures.files(), removals(connection)) == (files, set())


def test_a_repeated_upload_that_filled_the_quota_gets_its_stored_response(
    client: TestClient, person: Person, make_media: MakeMedia, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(get_settings(), "media_max_pictures", 1)
    picture = make_media(person, **{"Idempotency-Key": "k"})

    assert make_media(person, **{"Idempotency-Key": "k"}) == picture
    with_another_key = client.post(
        "/media", files={"file": ("a.png", pictures.png())}, headers=person.headers | {"Idempotency-Key": "l"}
    )
    assert_refused(with_another_key, 409, "quota_exceeded")


def test_forms_without_a_file_or_with_a_bad_text_are_refused(
    client: TestClient, connection: Connection, person: Person
) -> None:
    png = pictures.png()
    for request in (
        {"json": {"file": "x"}},
        {"data": {"file": "x"}},
        {"files": {"other": ("a.png", png)}},
        {"files": {"file": ("a.png", png)}, "data": {"alt": "x" * 1501}},
        {"files": {"file": ("a.png", png)}, "data": {"alt": "\0"}},
        {"files": [("file", ("a.png", png)), ("file", ("b.png", png))]},
        {"content": b"--x\r\nno", "headers": {"Content-Type": "multipart/form-data; boundary=y"}},
        {"content": b"", "headers": {"Content-Type": "multipart/form-data"}},
    ):
        sent = dict(request)
        headers = person.headers | sent.pop("headers", {})  # type: ignore[operator]
        assert_refused(client.post("/media", headers=headers, **sent), 422, "validation_failed")  # type: ignore[arg-type]
    assert (rows(connection), pictures.files()) == ([], set())


@pytest.mark.parametrize("charset", ["utf-8", "UTF8", "punycode", "undefined", "idna", "utf-16", "none"])
def test_forms_are_accepted_in_utf_8_only(client: TestClient, person: Person, charset: str) -> None:
    """`undefined` was a 500. For a text of 1 MB in `punycode`, the worker served no other request for 11 seconds."""
    parts = [b'name="alt"\r\n\r\nB\xc3\xbccher', b'name="file"; filename="a.png"\r\n\r\n' + pictures.png(), b"--\r\n"]
    form = b"".join(
        b"--x" + (part if part == b"--\r\n" else b"\r\nContent-Disposition: form-data; " + part + b"\r\n")
        for part in parts
    )
    headers = {"Content-Type": f'multipart/form-data; boundary=x; charset="{charset}"'}

    response = client.post("/media", content=form, headers=person.headers | headers)

    if charset.lower() in {"utf-8", "utf8"}:
        assert (response.status_code, response.json()["alt"]) == (201, "Bücher")
    else:
        assert_refused(response, 422, "validation_failed")
        assert response.json()["detail"][0]["msg"] == "Send the form in UTF-8"


@pytest.mark.parametrize(
    "end",
    [
        "DELETE FROM sessions WHERE user_id = :id",
        "UPDATE users SET last_ended_login_id = 9223372036854775807 WHERE id = :id",
    ],
    ids=["signed out", "banned"],
)
def test_an_upload_whose_session_ends_while_it_arrives_is_refused_and_leaves_nothing(
    client: TestClient, connection: Connection, person: Person, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    decode = decoding.decode

    def end_session_and_decode(file: BinaryIO) -> Picture:
        connection.execute(text(end), {"id": person.id})
        return decode(file)

    monkeypatch.setattr(decoding, "decode", end_session_and_decode)

    assert_unauthenticated(upload(client, person, pictures.png()))

    media.remove_files()
    assert (rows(connection), pictures.files(), removals(connection)) == ([], set(), set())


def test_an_export_ends_with_its_session_between_two_pictures(
    connection: Connection, person: Person, make_media: MakeMedia
) -> None:
    names = [make_media(person)["url"].rpartition("/")[2].encode() for _ in range(3)]
    parts = export.parts(person.id, person.session_id)
    read = bytearray()
    while names[0] not in read:
        read += next(parts)

    connection.execute(text("DELETE FROM sessions WHERE id = :id"), {"id": person.session_id})
    with pytest.raises(NotAuthenticated):
        read.extend(byte for part in parts for byte in part)

    assert [name in read for name in names] == [True, False, False]


def test_an_export_has_the_pictures(
    client: TestClient, person: Person, other: Person, make_media: MakeMedia, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "BATCH_PICTURES", 2)
    made = [make_media(person, alt=f"Boat {n}") for n in range(5)]
    make_media(other)

    response = client.get("/users/me/export", headers=person.headers)

    with zipfile.ZipFile(BytesIO(response.content)) as archive:
        assert archive.testzip() is None
        described = json.loads(archive.read("pictures.json"))
        file_names = [f"pictures/{picture['name']}.webp" for picture in described]
        assert [name for name in archive.namelist() if name.startswith("pictures/")] == file_names
        for name, picture in zip(file_names, made, strict=True):
            assert archive.read(name) == client.get(picture["url"]).content
    assert [(picture["id"], picture["alt"]) for picture in described] == [(each["id"], each["alt"]) for each in made]
