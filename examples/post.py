#!/usr/bin/env python3
"""Write a post as a program, with an API key. It needs Python 3.11 and nothing else.

    export API=http://127.0.0.1:8000 API_KEY=spk_…      # docs/authentication.md: a key with the scope `write`
    python examples/post.py "Moths" "I found one"

The request is repeated if the server is busy or the connection breaks. It has an Idempotency-Key, so the post is
written once.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
import uuid

TRIES = 4
MAX_PAUSE_SECONDS = 30


def write_post(api: str, key: str, title: str, content: str) -> dict[str, object]:
    """Write a post and return it as the API did. Raises `SystemExit` with the reason if it is refused."""
    request = urllib.request.Request(
        f"{api}/posts",
        data=json.dumps({"title": title, "content": content}).encode(),
        headers={"Content-Type": "application/json", "X-API-Key": key, "Idempotency-Key": str(uuid.uuid4())},
    )
    for tries_left in reversed(range(TRIES)):
        pause = 1.0
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                post: dict[str, object] = json.load(response)
                return post
        except urllib.error.HTTPError as error:
            if error.code not in {429, 503} or not tries_left:
                raise SystemExit(f"refused: {error.code} {_detail(error)}") from None
            pause = float(error.headers.get("Retry-After", pause))
        except OSError as error:
            if not tries_left:
                raise SystemExit(f"no answer from {api}: {error}") from None
        time.sleep(min(pause, MAX_PAUSE_SECONDS))
    raise AssertionError("unreachable")


def _detail(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["detail"])
    except (ValueError, KeyError):
        return error.reason


def main() -> None:
    """Write the post of the command line, and print its address."""
    if len(sys.argv) != 3 or not os.environ.get("API_KEY"):
        raise SystemExit(f"usage: API=http://127.0.0.1:8000 API_KEY=spk_… {sys.argv[0]} TITLE CONTENT")
    api = os.environ.get("API", "http://127.0.0.1:8000").rstrip("/")
    post = write_post(api, os.environ["API_KEY"], *sys.argv[1:])
    print(f"{api}/posts/{post['id']}")


if __name__ == "__main__":
    main()
