"""Sample pictures and moderation for `python -m app seed`, made by the services that requests use.

The pictures are drawn, and then decoded and stored as uploads are. The drawings depend only on the seed.
"""

import math
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing

from PIL import Image, ImageDraw
from sqlalchemy import and_, exists, select
from sqlalchemy.orm import Session

from app.database.sessions import transaction
from app.dev.seed import CannotSeed
from app.errors import DomainError
from app.media import decoding
from app.models import Comment, Post, ReportAction, User
from app.models import Report as ReportRow
from app.schemas.moderation import ReportIn, ResolutionIn
from app.schemas.post import PostChange
from app.services import administration, media, moderation, post

Color = tuple[int, int, int]
Report = Callable[[str, int, int], None]

AVATAR_SHARE = 0.25
# Some posts have several pictures.
PICTURES_OF_POST = (1, 1, 1, 2, 4)
SIZES = ((1_200, 800), (800, 1_000), (1_000, 1_000))
AVATAR_SIDE = 400
# The sky from above to the horizon, the sun, and the hills from far to near.
SCENES: dict[str, tuple[Color, Color, Color, Color, Color]] = {
    "dawn": ((92, 122, 168), (250, 204, 170), (255, 241, 214), (150, 150, 178), (44, 58, 66)),
    "noon": ((64, 138, 206), (198, 226, 240), (255, 252, 236), (142, 172, 168), (52, 92, 54)),
    "dusk": ((58, 52, 104), (244, 142, 96), (255, 208, 130), (134, 92, 116), (38, 28, 46)),
    "night": ((12, 18, 44), (54, 70, 112), (232, 236, 244), (42, 52, 84), (10, 14, 26)),
}
SKINS: tuple[Color, ...] = ((245, 214, 186), (224, 178, 138), (176, 124, 84), (112, 74, 50))
CLOTHES: tuple[Color, ...] = ((58, 92, 128), (142, 62, 62), (74, 104, 78), (196, 156, 84), (70, 66, 82))
HAIRS: tuple[Color, ...] = ((40, 30, 26), (92, 60, 36), (196, 158, 96), (150, 150, 154))
REASONS = (
    "Spam",
    "Insults another user",
    "An advertisement, for the third time",
    "Off topic",
    "Shows a private address",
)
RESOLUTIONS: tuple[ReportAction, ...] = ("remove", "ban", "dismiss")
# Reports are about some of the newest posts, comments and users.
NEWEST = 500
# The moderator, an author, and a reporter who is neither.
MIN_USERS = 3
_IS_PLAIN_USER = and_(User.role == "user", User.is_active, ~User.is_deleted, User.ban_reason.is_(None))


def add_pictures(amount: int, seed: int, report: Report) -> None:
    """Add pictures to the newest posts and to the profiles of their authors. Raises `CannotSeed`."""
    draw = random.Random(seed)  # noqa: S311 - nothing here is secret.
    avatars = int(amount * AVATAR_SHARE)
    with transaction() as db:
        newest = db.execute(
            select(Post.id, Post.owner_id, User.avatar.is_not(None))
            .join(User, Post.owner_id == User.id)
            .where(Post.published, Post.media == "[]", _IS_PLAIN_USER)
            .order_by(Post.created_at.desc(), Post.id.desc())
            .limit(3 * amount)
        ).all()
    owners = dict.fromkeys(owner_id for _, owner_id, has_avatar in newest if not has_avatar)
    done = 0
    try:
        for owner_id in [*owners][:avatars]:
            with transaction() as db:
                media.set_avatar(db, owner_id, upload(owner_id, portrait(draw), None))
            done += 1
            report("pictures", done, amount)
        for post_id, owner_id, _ in draw.sample(newest, len(newest)):
            ids = []
            for _ in range(min(amount - done, draw.choice(PICTURES_OF_POST))):
                scene = draw.choice([*SCENES])
                ids.append(upload(owner_id, landscape(draw, scene), f"Hills at {scene}"))
            if ids:
                with transaction() as db:
                    post.change(db, db.get_one(User, owner_id), post_id, PostChange(media_ids=ids), None)
                done += len(ids)
                report("pictures", done, amount)
    except DomainError as error:
        raise CannotSeed(f"{done:,} of {amount:,} pictures were added: {error.detail}") from None
    if done < amount:
        raise CannotSeed(f"only {done:,} of {amount:,} pictures were added: pass more --posts")


def upload(owner_id: int, drawn: Image.Image, alt: str | None) -> int:
    """Store a drawing as a picture of the user, as an upload is stored, and return its id. Raises `DomainError`."""
    with tempfile.TemporaryFile() as file:
        drawn.save(file, "JPEG", quality=90)
        with closing(decoding.decode(file)) as picture:
            name = media.store(picture)
            try:
                with transaction() as db:
                    return media.create(db, owner_id, name, picture, alt).id
            except BaseException:
                media.discard(name)
                raise


def landscape(draw: random.Random, scene: str) -> Image.Image:
    """Draw a sky with sun or moon, and hills that are darker the nearer they are."""
    above, horizon, sun, far, near = SCENES[scene]
    width, height = draw.choice(SIZES)
    mask = Image.linear_gradient("L").resize((width, height))
    picture = Image.composite(Image.new("RGB", mask.size, horizon), Image.new("RGB", mask.size, above), mask)
    pen = ImageDraw.Draw(picture)
    x, y, radius = draw.uniform(0.1, 0.9) * width, draw.uniform(0.15, 0.5) * height, draw.uniform(0.03, 0.07) * width
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=sun)
    hills = draw.randint(3, 5)
    for number in range(hills):
        nearness = number / (hills - 1)
        red, green, blue = (round(a + (b - a) * nearness) for a, b in zip(far, near, strict=True))
        ridge = list(_ridge(draw, width, height * (0.5 + 0.4 * nearness), height * 0.07))
        pen.polygon([(0, height), *ridge, (width, height)], fill=(red, green, blue))
    return picture


def _ridge(draw: random.Random, width: int, middle: float, amplitude: float) -> Iterator[tuple[float, float]]:
    waves = [
        (draw.uniform(0.5, 1) / n, draw.uniform(1, 2) * n * math.tau / width, draw.uniform(0, 7)) for n in (1, 2, 5)
    ]
    for x in range(0, width + 10, 10):
        yield x, middle + amplitude * sum(size * math.sin(pace * x + start) for size, pace, start in waves)


def portrait(draw: random.Random) -> Image.Image:
    """Draw a head and shoulders on a plain ground."""
    side = AVATAR_SIDE
    ground = tuple(draw.randint(150, 225) for _ in range(3))
    picture = Image.new("RGB", (side, side), (ground[0], ground[1], ground[2]))
    pen = ImageDraw.Draw(picture)
    pen.ellipse((0.12 * side, 0.68 * side, 0.88 * side, 1.5 * side), fill=draw.choice(CLOTHES))
    pen.ellipse((0.29 * side, 0.16 * side, 0.71 * side, 0.66 * side), fill=draw.choice(HAIRS))
    skin = draw.choice(SKINS)
    pen.rectangle((0.43 * side, 0.6 * side, 0.57 * side, 0.76 * side), fill=skin)
    pen.ellipse((0.33 * side, 0.24 * side, 0.67 * side, 0.7 * side), fill=skin)
    return picture


# What is reported, and its author.
Thing = tuple[dict[str, int], int]


def add_moderation(amount: int, seed: int, report: Report) -> str:
    """Add reports, and resolve the first ones; lock a post. Return the address of the moderator, the newest user.

    Of the first three reports, one led to a removal, one to a ban, and one was dismissed. Raises `CannotSeed`.
    """
    draw = random.Random(seed)  # noqa: S311 - nothing here is secret.
    with transaction() as db:
        users = db.scalars(select(User).where(_IS_PLAIN_USER).order_by(User.id.desc()).limit(NEWEST)).all()
        if len(users) < MIN_USERS:
            raise CannotSeed(f"reports need {MIN_USERS} users: pass --users too")
        moderator, *reporters = users
        administration.set_role(db, moderator, "moderator")
        things = _things(db, moderator.id, draw)
    if len(things) <= amount:
        raise CannotSeed(f"{amount:,} reports need more posts: pass more --posts")
    try:
        for number, (thing, author_id) in enumerate(things[:amount]):
            reporter = draw.choice([user for user in reporters if user.id != author_id])
            with transaction() as db:
                written = moderation.write(db, reporter, ReportIn(**thing, reason=draw.choice(REASONS)))
                if number < len(RESOLUTIONS):
                    wanted = ResolutionIn(action=RESOLUTIONS[number], note=written.reason, until=None)
                    moderation.resolve(db, moderator, written.id, wanted)
            report("reports", number + 1, amount)
        with transaction() as db:
            post.set_lock(db, moderator, things[amount][0]["post_id"], is_locked=True)
    except DomainError as error:
        raise CannotSeed(error.detail) from None
    return moderator.email


def _things(db: Session, moderator_id: int, draw: random.Random) -> list[Thing]:
    """Return posts and comments of others that have no open report: three posts before each comment."""
    is_open = ReportRow.resolved_at.is_(None)
    posts = db.execute(
        select(Post.id, Post.owner_id)
        .join(User, Post.owner_id == User.id)
        .where(Post.published, _IS_PLAIN_USER, User.id != moderator_id)
        .where(~exists().where(ReportRow.post_id == Post.id, is_open))
        .order_by(Post.id.desc())
        .limit(NEWEST)
    ).all()
    comments = db.execute(
        select(Comment.id, Comment.owner_id)
        .join(User, Comment.owner_id == User.id)
        .join(Post, Comment.post_id == Post.id)
        .where(Post.published, Comment.removal_reason.is_(None), _IS_PLAIN_USER, User.id != moderator_id)
        .where(~exists().where(ReportRow.comment_id == Comment.id, is_open))
        .order_by(Comment.id.desc())
        .limit(NEWEST // 2)
    ).all()
    mixed: list[Thing] = [({"post_id": post_id}, author_id) for post_id, author_id in draw.sample(posts, len(posts))]
    for number, (comment_id, author_id) in enumerate(draw.sample(comments, len(comments))):
        mixed.insert(4 * number + 3, ({"comment_id": comment_id}, author_id or 0))
    return mixed
