"""The load of typical readers, for people who know Locust.

    pip install locust
    RATE_LIMITS_ENABLED=false make run
    locust -f bench/locustfile.py --host http://127.0.0.1:8000

Without this setting, the server lets an address sign up 100 accounts an hour, and the users after these fail.
Each user signs up, and then mostly reads pages, opens posts, votes, and sometimes writes. `make bench` has the loads of
docs/benchmarks.md, which Locust cannot make: it takes more processor time for a request than this server.
"""

import random
import secrets

from locust import HttpUser, between, task

PASSWORD = "a long password"


class Reader(HttpUser):
    """A signed-in reader, who sometimes writes."""

    wait_time = between(0.5, 2)

    def on_start(self) -> None:
        """Sign up and log in."""
        email = f"locust-{secrets.token_hex(8)}@example.com"
        self.client.post("/users", json={"email": email, "password": PASSWORD}).raise_for_status()
        answer = self.client.post("/login", data={"username": email, "password": PASSWORD})
        answer.raise_for_status()
        self.client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        self.post_ids: list[int] = []
        self.write()

    @task(10)
    def read_pages(self) -> None:
        """Read the newest posts, and follow the link to the second page."""
        page = self.client.get("/posts", params={"limit": 10})
        if page.ok:
            self.post_ids = [item["Post"]["id"] for item in page.json()] or self.post_ids
        if following := page.links.get("next"):
            self.client.get(f"/posts{following['url']}", name="/posts, second page")

    @task(5)
    def open_a_post(self) -> None:
        """Open a post and its comments."""
        post_id = random.choice(self.post_ids)
        self.client.get(f"/posts/{post_id}", name="/posts/{id}")
        self.client.get(f"/posts/{post_id}/comments", name="/posts/{id}/comments")

    @task(3)
    def vote(self) -> None:
        """Vote for a post. Voting twice is no error with PUT."""
        self.client.put(f"/posts/{random.choice(self.post_ids)}/vote", name="/posts/{id}/vote")

    @task(1)
    def write(self) -> None:
        """Publish a post."""
        made = self.client.post("/posts", json={"title": f"Post {secrets.token_hex(4)}", "content": "Some text"})
        if made.ok:
            self.post_ids.append(made.json()["id"])
