"""Hashing passwords does not take the time of those who are answered."""

import asyncio
import os
import sys
import threading

import pytest

from app import passwords


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a priority is the whole process's")
def test_hashing_gives_way_to_answering() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    assert asyncio.run(passwords.in_hashing_thread(niceness)) > niceness()
