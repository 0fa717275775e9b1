"""Hashing passwords does not take the time of those who are answered."""

import asyncio
import os
import subprocess
import sys
import threading

import pytest

from app import passwords


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a priority is the whole process's")
def test_hashing_gives_way_to_answering() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    assert asyncio.run(passwords.in_hashing_thread(niceness)) > niceness()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a priority is the whole process's")
def test_hashing_gives_way_also_in_a_process_that_was_started_to_give_way_itself() -> None:
    program = """
import asyncio, os, threading
os.nice(6)
from app import passwords
def niceness():
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
print(asyncio.run(passwords.in_hashing_thread(niceness)) - niceness())
"""

    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert int(ran.stdout) > 0
