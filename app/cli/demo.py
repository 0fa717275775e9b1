"""A small site to show: people, posts, pictures and threads with hand-written texts, for `python -m app seed --demo`.

The data are the same each time. Times are relative to the present, so that the site looks alive.
"""

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import exists, func, insert, select
from sqlalchemy.orm import Session

from app.cli.samples import landscape, portrait, upload
from app.database.sessions import transaction
from app.dev.seed import FIRST_NAMES, LAST_NAMES, CannotSeed
from app.models import Comment, CommentVote, Follow, Post, User, Vote
from app.schemas.post import PostChange
from app.services import follow, media, post

# Username, name, and what the profile says.
PEOPLE: tuple[tuple[str, str, str], ...] = (
    ("mira", "Mira Lindqvist", "Allotment 14, two beehives and too many tomatoes. I moderate here."),
    ("tomas", "Tomás Herrera", "Slow walks with a heavy camera."),
    ("ines", "Inês Carvalho", "Birds before breakfast. Field notes mostly."),
    ("okoro", "Daniel Okoro", "I repair bicycles on Saturdays, and philosophy on other days."),
    ("yuki", "Yuki Tanabe", "Night skies, long exposures, cold feet."),
    ("hanne", "Hanne Vogel", "Baker. Ask me about rye."),
    ("sam", "Sam Whitlock", "New in town."),
    ("priya", "Priya Raman", "Maps, rivers, and the history of both."),
    ("leon", "Leon Brandt", "Father of three. Always looking for a dry path."),
    ("aoife", "Aoife Brennan", "I swim in the lake all year. Yes, also then."),
)
# Others, who read and vote.
READERS = 48
MARKER = PEOPLE[0][0]


@dataclass(frozen=True, slots=True)
class Said:
    """A comment, with the hours since it was written, its votes and its replies."""

    author: str
    hours: float
    votes: int
    content: str
    replies: tuple["Said", ...] = ()


@dataclass(frozen=True, slots=True)
class Written:
    """A post. `scenes` are names of `samples.SCENES` with what the picture shows."""

    author: str
    hours: float
    votes: int
    title: str
    content: str
    tags: tuple[str, ...]
    scenes: tuple[tuple[str, str], ...] = ()
    comments: tuple[Said, ...] = ()


POSTS: tuple[Written, ...] = (
    Written(
        "priya", 190, 17, "What the river was called before the mill",
        "The oldest map in the town archive is from 1741, and it does not know our river's name. It calls it the Grey"
        " Water, all the way from the spring to the bridge.\n\nThe name that we use appears for the first time in a"
        " letter of the miller's, who wanted to be paid for a flood. I have copied the letter and can bring it on"
        " Thursday.",
        ("history", "maps"),
        comments=(
            Said("leon", 186, 9, "My grandmother still said the Grey. I always thought that she meant the colour."),
            Said("mira", 170, 4, "Please do bring it. The reading room has the good lamp until eight."),
        ),
    ),
    Written(
        "leon", 141, 12, "A dry way to the lake with a pushchair",
        "Since the storm, the path along the ditch is under water. This one works: past the fire station, left at the"
        " walnut tree, then always beside the wall. It takes ten minutes longer, and no child has to be carried.",
        ("paths", "families"),
        comments=(Said("sam", 130, 5, "Tried it today. The walnut tree has a swing now: plan for another half hour."),),
    ),
    Written(
        "hanne", 98, 26, "Rye for people who have no time",
        "Evening: 300 g rye flour, 300 g warm water, a spoon of starter. Stir, cover, sleep.\n\nMorning: another 200"
        " g flour, 120 g water, 10 g salt, a spoon of caraway if you like it. Into the tin with wet hands. Two hours"
        " on the radiator, then an hour at 220 °C, falling to 190.\n\nDo not cut it before the next day. I mean it.",
        ("baking", "recipes"),
        comments=(
            Said("okoro", 95, 14, "I cut it after an hour. It was glue, and it was delicious.", (
                Said("hanne", 94, 21, "I have written down your name."),
            )),
            Said("aoife", 60, 6, "Does it work with a gas oven? Mine has two temperatures, off and angry.", (
                Said("hanne", 58, 8, "Put a second tin upside down on top for the first half hour. It forgives a lot."),
            )),
        ),
    ),
    Written(
        "yuki", 71, 31, "Saturn over the water tower",
        "Forty frames of four seconds, stacked, from the field behind the school. The bright point to the left of the"
        " hill is Saturn, and it will stay there until the end of the month.\n\nIf you want to see the rings: I bring"
        " the telescope on Friday, from nine, if the sky is clear. Bring something warm to sit on.",
        ("astronomy", "photos"),
        (("night", "A clear night above dark hills, with the moon low in the sky"),),
        (
            Said("tomas", 69, 12, "Four seconds! I would have shaken it to pieces. What do you put under the tripod?", (
                Said("yuki", 68, 10, "Three hockey pucks, with a dent for each foot. Best two euros of my life."),
            )),
            Said("leon", 50, 7, "Is it too late for a seven-year-old who knows all the moons by heart?", (
                Said("yuki", 49, 15, "It is exactly right for a seven-year-old. They get the first look."),
            )),
        ),
    ),
    Written(
        "okoro", 52, 22, "Repair café this Saturday: brakes",
        "We meet at ten in the old tram depot. This time everything is about brakes: cables, pads, and why it"
        " squeals.\n\nTools are there, and so is coffee. If you can, bring an old inner tube; we cut them into straps"
        " for the bags. If you break it, you get to repair it.",
        ("bicycles", "repair"),
        comments=(
            Said("sam", 47, 6, "I have a bike from my uncle with brakes that you pedal backwards. Hopeless?", (
                Said("okoro", 46, 11, "On the contrary. Those outlive us all. Bring it, it needs grease and respect."),
            )),
        ),
    ),
    Written(
        "ines", 29, 28, "Field notes: the first redstarts are back",
        "Two males in the gravel pit, one on the fence and one in the birch, and neither pleased about the other."
        " They are nine days earlier than last year.\n\n05:40, 4 °C, no wind. Also: a wren, twelve tits, a heron that"
        " looked as if it had paid for the place.",
        ("birds", "field-notes"),
        (("dawn", "The sun rises behind misty hills"), ("noon", "Green hills under a light blue sky")),
        (
            Said("tomas", 27, 8, "The heron stands there every morning. I have begun to greet it."),
            Said("priya", 25, 6, "Nine days! Do you still have the list from 2019? I would like to draw it.", (
                Said("ines", 24, 7, "All of them since 2008, in eleven notebooks and one flour bag. Come for tea."),
            )),
            Said("leon", 20, 3, "What is the song that begins like a squeaking gate? Our garden is full of it.", (
                Said("ines", 19, 9, "That is the black redstart. The squeaking is the best part of it."),
            )),
        ),
    ),
    Written(
        "sam", 20, 15, "New here. Where do people go when it rains?",
        "I moved here in the wettest week of the year, and I know the inside of three rooms. I like reading, bad"
        " films and being useful. What do you do on such a Sunday?",
        ("questions",),
        comments=(
            Said("priya", 19, 13, "The archive, on the first Sunday. It smells of dust and has the best radiators."),
            Said("hanne", 18, 17, "The bakery needs a person who eats the ends.", (
                Said("sam", 17, 9, "This is the job that I have trained for."),
            )),
            Said("aoife", 15, 12, "The lake. It is the only place where rain makes no difference."),
        ),
    ),
    Written(
        "aoife", 11, 24, "The lake is at nine degrees",
        "Measured at the steps, 7:15, with the good thermometer. The fog lifted just as we came out.\n\nA reminder"
        " for those who join on Sunday: in slowly, out early, and the tea is for afterwards. There is nothing to"
        " prove.",
        ("swimming", "lake"),
        (("dusk", "Evening light over the hills by the lake"),),
        (
            Said("okoro", 10, 8, "Nine is a number for soup."),
            Said("sam", 9, 6, "How long is “slowly”? Asking for my feet.", (
                Said("aoife", 8, 11, "As long as it takes to tell one story. Then your shoulders are in."),
            )),
        ),
    ),
    Written(
        "tomas", 6, 34, "Three evenings on the ridge",
        "I went up three evenings in a row, with the same lens, to the same stone. On the first one I was too late,"
        " on the second it rained. This is the third.\n\nThe way up begins behind the chapel and takes forty minutes"
        " with a tripod. Come down before it is dark: the last part is roots.",
        ("photos", "walks"),
        (("dusk", "The sun sets behind five rows of hills, each darker than the one before"),),
        (
            Said("yuki", 5, 13, "The second row is in the shadow of a cloud, isn't it? You waited for that.", (
                Said("tomas", 4.5, 9, "I did not wait. I was eating an apple, and then it was there."),
            )),
            Said("aoife", 3.8, 6, "I saw you from the lake! A small lamp going down, then not going down for long.", (
                Said("tomas", 3.2, 12, "That was the roots."),
            )),
            Said("mira", 1, 5, "May I use it for the calendar of the garden club? With your name, of course."),
        ),
    ),
    Written(
        "mira", 3, 38, "Swap table: seedlings for anything",
        "I have sown as if I had a farm. On the table at gate 2 are forty tomato plants, of five sorts, with names on"
        " the pots. Take some, and leave something: seeds, jars, a poem.\n\nThe striped ones are Tigerella. They do"
        " not mind our summers.",
        ("gardening", "swap"),
        comments=(
            Said("hanne", 2.6, 10, "Took two, left a loaf. It is from today, so do not cut it yet."),
            Said("ines", 2.2, 7, "I left a jar of feathers. They are for the scarecrow, and for no other purpose."),
            Said("leon", 1.5, 4, "The poem is by my daughter. It is about snails, and it is not on their side.", (
                Said("mira", 0.8, 9, "It hangs in the shed now, at the height of snails."),
            )),
        ),
    ),
)  # fmt: skip


def add_demo(password_hash: str) -> str:
    """Add the site, and return the address of its moderator. Raises `CannotSeed` if it is there already."""
    now = datetime.now(UTC)
    with transaction() as db:
        if db.scalar(select(exists().where(func.lower(User.username) == MARKER))):
            raise CannotSeed("the demo is there already")
        ids = _add_people(db, password_hash, now)
        post_ids = [_add_post(db, written, ids, now) for written in POSTS]
        _add_follows(db, ids)
    for number, (name, _, _) in enumerate(PEOPLE):
        avatar = upload(ids[name], portrait(random.Random(number)), None)  # noqa: S311 - nothing here is secret.
        with transaction() as db:
            media.set_avatar(db, ids[name], avatar)
    for number, (written, post_id) in enumerate(zip(POSTS, post_ids, strict=True)):
        draw, owner_id = random.Random(number), ids[written.author]  # noqa: S311
        if pictures := [upload(owner_id, landscape(draw, scene), alt) for scene, alt in written.scenes]:
            with transaction() as db:
                post.change(db, db.get_one(User, owner_id), post_id, PostChange(media_ids=pictures), None)
    return f"{MARKER}@example.com"


def _add_people(db: Session, password_hash: str, now: datetime) -> dict[str, int]:
    """Return the ids by username, those of `PEOPLE` first."""
    names = zip(FIRST_NAMES.split()[::2], LAST_NAMES.split()[::2], strict=False)
    readers = [(f"{first}_{last}", f"{first} {last}".title(), "") for first, last in names][:READERS]
    rows = [
        {
            "email": f"{username}@example.com",
            "email_canonical": f"{username}@example.com",
            "username": username,
            "display_name": name,
            "bio": bio,
            "password_hash": password_hash,
            "role": "moderator" if username == MARKER else "user",
            "created_at": now - timedelta(days=400 - 3 * number),
        }
        for number, (username, name, bio) in enumerate([*PEOPLE, *readers])
    ]
    found = db.execute(insert(User).returning(User.username, User.id, sort_by_parameter_order=True), rows)
    return {username or "": user_id for username, user_id in found}


def _add_post(db: Session, written: Written, ids: dict[str, int], now: datetime) -> int:
    at = now - timedelta(hours=written.hours)
    values = {
        "title": written.title,
        "content": written.content,
        "tags": [*written.tags],
        "owner_id": ids[written.author],
        "created_at": at,
        "updated_at": at,
    }
    post_id = db.scalars(insert(Post).values(values).returning(Post.id)).one()
    voters = _voters(ids, written.author, written.votes, post_id)
    db.execute(insert(Vote), [{"post_id": post_id, "user_id": voter} for voter in voters])
    for said in written.comments:
        _add_comment(db, said, post_id, None, ids, now)
    return post_id


def _add_comment(
    db: Session, said: Said, post_id: int, parent: tuple[int, int] | None, ids: dict[str, int], now: datetime
) -> None:
    """Add the comment and its replies. `parent` has the id and the depth."""
    at = now - timedelta(hours=said.hours)
    parent_id, depth = (None, 0) if parent is None else (parent[0], parent[1] + 1)
    values = {
        "post_id": post_id,
        "parent_id": parent_id,
        "depth": depth,
        "content": said.content,
        "owner_id": ids[said.author],
        "created_at": at,
        "updated_at": at,
    }
    comment_id = db.scalars(insert(Comment).values(values).returning(Comment.id)).one()
    voters = _voters(ids, said.author, said.votes, comment_id)
    db.execute(insert(CommentVote), [{"comment_id": comment_id, "user_id": voter} for voter in voters])
    for reply in said.replies:
        _add_comment(db, reply, post_id, (comment_id, depth), ids, now)


def _add_follows(db: Session, ids: dict[str, int]) -> None:
    """Let the authors follow three of them, with notifications, and the others two."""
    authors = [name for name, _, _ in PEOPLE]
    for followee in (MARKER, "tomas", "yuki"):
        for follower in authors:
            if follower != followee:
                follow.add(db, db.get_one(User, ids[follower]), ids[followee])
    readers = [user_id for name, user_id in ids.items() if name not in authors]
    rows = [{"follower_id": one, "followee_id": ids[name]} for name in ("ines", "hanne") for one in readers]
    db.execute(insert(Follow), rows)


def _voters(ids: dict[str, int], author: str, votes: int, place: int) -> list[int]:
    """Return so many users other than the author, beginning at a place that differs between posts."""
    others = [user_id for name, user_id in ids.items() if name != author]
    return sorted((others * 2)[place % len(others) :][:votes])
