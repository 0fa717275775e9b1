"""The API equals its model: random histories of a whole site, compared answer by answer."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import Engine, text
from starlette.testclient import TestClient

from tests.figures import Figure
from tests.fixtures import EMPTIED
from tests.model.media import Pictured

Run = Callable[[settings], int]


@pytest.fixture
def run(client: TestClient, database: Engine) -> Run:
    """Run the machine, and return the number of compared answers."""

    def empty() -> None:
        with database.begin() as connection:
            for table in EMPTIED:
                connection.execute(text(f"DELETE FROM {table}"))

    def appoint(user_id: int) -> None:
        with database.begin() as connection:
            connection.execute(text("UPDATE users SET role = 'moderator' WHERE id = :id"), {"id": user_id})

    def run(chosen: settings) -> int:
        class Here(Pictured):
            pass

        Here.client, Here.empty, Here.appoint = client, staticmethod(empty), staticmethod(appoint)
        run_state_machine_as_test(Here, settings=chosen)
        return Here.answer_count

    return run


BASE = settings(
    deadline=None, database=None, suppress_health_check=[*HealthCheck], print_blob=True,
    phases=[Phase.generate, Phase.shrink],
)  # fmt: skip


def test_the_api_equals_its_model_in_a_few_short_lives(run: Run) -> None:
    answers = run(settings(BASE, max_examples=15, stateful_step_count=40, derandomize=True))

    assert answers > 300


# In parts, because a test has 15 minutes.
@pytest.mark.slow
@pytest.mark.parametrize("part", range(1, 6))
def test_the_api_equals_its_model(run: Run, figure: Figure, part: int) -> None:
    answers = run(settings(BASE, max_examples=100, stateful_step_count=50))

    figure(f"R2: part {part} of 5, 100 runs of 50 steps, {answers:,} answers compared with the model's, no difference")
    assert answers > 3_000
