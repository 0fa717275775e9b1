"""Each worker's thread that sends mails; whoever finds a mail due takes it, so workers share the work.

It looks for mails every second or two, and is not told of new ones: that a mail goes out is no sign that can be seen
in how long the request that wanted it, or the next one, takes.
"""

import logging
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

from app.config import get_settings
from app.errors import DomainError
from app.services import mail
from app.smtp import Transport, transport

logger = logging.getLogger("app.mail")

PAUSE_SECONDS = 2
PAUSE_AFTER_FAILURE_SECONDS = 15
# A mail server that does not answer holds no shutdown up: the mail is sent once its lease has ended.
LONGEST_STOP_SECONDS = 1


@contextmanager
def at_work() -> Iterator[None]:
    """Send mails while the block runs, if mails are sent at all."""
    settings = get_settings()
    way_out = transport(settings)
    if way_out is None:
        if settings.environment == "production" and settings.mail_enabled:
            logger.warning(
                "no mail can be sent, as SMTP_HOST is not set; mails wait in the database, for a day at most"
            )
        yield
        return
    stop = threading.Event()
    thread = threading.Thread(target=_work, args=(way_out, stop), name="postman", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(LONGEST_STOP_SECONDS)


def _work(way_out: Transport, stop: threading.Event) -> None:
    pause: float = 0
    while not stop.wait(pause * random.uniform(0.5, 1)):  # noqa: S311 - so that workers do not all ask at once.
        pause = PAUSE_SECONDS
        try:
            while not stop.is_set() and mail.send_next(way_out):
                pass
        except (SQLAlchemyError, DomainError) as error:  # The database does not answer, or is not migrated yet.
            logger.warning("mails have to wait: %s", type(error).__name__)
            pause = PAUSE_AFTER_FAILURE_SECONDS
        except Exception:
            logger.exception("mails have to wait")
            pause = PAUSE_AFTER_FAILURE_SECONDS
