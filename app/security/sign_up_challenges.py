"""Proof of work for sign-ups: ALTCHA challenges, which cost a client some 0.7 s of a core.

A challenge is signed, and issuing it stores nothing. Its nonce is stored when its solution is used, in the table of
attempt counters. So a solution counts once on all servers together, and each stored row has cost its sender the work.
"""

import hashlib
import hmac
import time
from datetime import timedelta

import altcha

from app.config import get_settings
from app.errors import InvalidProof
from app.security import attempt_limits

ALGORITHM = "PBKDF2/SHA-256"
# Iterations of one try. Verifying a solution takes one try, and finding it 256 on average, because one key in 256
# begins with a zero byte.
COST = 5_000
KEY_PREFIX = "00"
LIFETIME = timedelta(minutes=10)


def issue() -> altcha.Challenge:
    """Return a new signed challenge."""
    expires_at = int(time.time() + LIFETIME.total_seconds())
    secret = _key(get_settings().signing_secret)
    return altcha.create_challenge(ALGORITHM, COST, key_prefix=KEY_PREFIX, expires_at=expires_at, hmac_secret=secret)


def use(proof: str | None) -> None:
    """Check a solution and use it up, in a transaction of its own.

    It is also used up if the sign-up fails, so that the answer for each e-mail address costs the work.
    Raises `InvalidProof` for a missing, wrong, expired or used solution, and `Unavailable`.
    """
    secrets = get_settings().accepted_secrets
    if proof is None or not any(altcha.verify_solution(proof, _key(secret)).verified for secret in secrets):
        raise InvalidProof
    # The same solution has several encodings, and a challenge several solutions, but its signature covers the nonce.
    nonce = altcha.Payload.from_base64(proof).challenge.parameters.nonce
    # Twice its lifetime, because the clocks of two servers may differ.
    if not attempt_limits.claim("sign_up_challenge", nonce, kept=2 * LIFETIME):
        raise InvalidProof


def _key(secret: str) -> bytes:
    return hmac.digest(secret.encode(), b"sign-up-challenge", hashlib.sha256)
