"""Atom feeds of posts (RFC 4287)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

from feedgenerator import Atom1Feed

from app.services.feed.rows import PostRow

# XML 1.0 has no other characters, not even escaped ones. JSON has.
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_REPLACEMENT = "\ufffd"


@dataclass(frozen=True, slots=True)
class FeedHead:
    """The title of a feed, its address and that of the list of its posts, below the base URL of the site."""

    title: str
    path: str
    list_path: str


class _Feed(Atom1Feed):  # type: ignore[misc]
    """A feed whose bytes depend on nothing but its entries. The library dates an empty one by the current time."""

    def latest_post_date(self) -> datetime:
        dated: datetime = super().latest_post_date() if self.items else datetime.fromtimestamp(0, UTC)
        return dated


def render(head: FeedHead, rows: Sequence[PostRow], site: str) -> bytes:
    """Return the feed of these posts, with links below the base URL `site`.

    The content is text, so it is escaped as HTML. The id of an entry is its address: a site that moves to another host
    shows its posts again as new ones.
    """
    feed = _Feed(
        title=_xml_text(head.title), link=site + head.list_path, description="", feed_url=site + head.path,
        feed_guid=site + head.path,
    )  # fmt: skip
    for row in rows:
        address = f"{site}/posts/{row.id}"
        feed.add_item(
            title=_xml_text(row.title),
            link=address,
            unique_id=address,
            description=None,
            content=escape(_xml_text(row.content)).replace("\n", "<br>\n"),
            author_name=row.username,
            pubdate=datetime.fromisoformat(row.created_at),
            updateddate=datetime.fromisoformat(row.updated_at),
            categories=row.tag_names,
        )
    xml: str = feed.writeString("utf-8")
    return xml.encode()


def _xml_text(text: str) -> str:
    return _NOT_IN_XML.sub(_REPLACEMENT, text)
