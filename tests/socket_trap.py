"""Run before a program starts: nothing in this process, or in those it starts, reaches for a network unnoticed.

An audit hook sees what Python code asks of sockets. Each forbidden act raises, and leaves a line in the file that the
environment variable names, so that it is known also where the program swallows the error. A child process is forbidden
unless it runs this file first. Sockets that C libraries open on their own show in `inet_sockets`.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

LOG_VARIABLE = "GAZE_INSIGHT_TEST_SOCKET_LOG"
PROBE_VARIABLE = "GAZE_INSIGHT_TEST_SOCKET_PROBE"
MARK = "# trapped by tests/socket_trap.py"


def set_trap() -> None:
    """Forbid sockets for the rest of this process."""
    note(f"set {os.getpid()} {' '.join(sys.argv[1:3])[:60]}")
    sys.addaudithook(_hook)


def note(line: str) -> None:
    """Add a line to the log."""
    with open(os.environ[LOG_VARIABLE], "a", encoding="utf-8") as stream:
        stream.write(line.replace("\n", " ") + "\n")


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if event.startswith("socket."):
        if _harmless(event, args):
            return
    elif event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
        if event == "subprocess.Popen" and any(MARK in str(one) for one in args[1]):
            return
    else:
        return
    note(f"forbidden {event} {args!r}")
    raise PermissionError(f"{event} is forbidden here")


def _harmless(event: str, args: tuple[Any, ...]) -> bool:
    if event == "socket.gethostname":
        return True
    if event == "socket.__new__":
        return bool(args[1] == socket.AF_UNIX)
    if event in ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg"):
        return bool(args[0].family == socket.AF_UNIX)
    return False


def worker_command(command: list[str]) -> list[str]:
    """Return the command of an isolated worker with the trap set first."""
    start = command.index("-m")
    assert command[start + 1] == "app"
    code = (
        f"{MARK}\nexec(compile(open({__file__!r}).read(), {__file__!r}, 'exec'))\n"
        "import runpy\nrunpy.run_module('app', run_name='__main__', alter_sys=True)"
    )
    return [*command[:start], "-c", code, *command[start + 2 :]]


def inet_sockets() -> list[str]:
    """Return this process's internet sockets as Linux's kernel knows them, whoever opened them."""
    known = {}
    for table in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6"):
        path = f"/proc/self/net/{table}"
        if os.path.exists(path):
            with open(path, encoding="ascii") as stream:
                for line in list(stream)[1:]:
                    fields = line.split()
                    known[f"socket:[{fields[9]}]"] = f"{table} {fields[1]} {fields[2]}"
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if target in known:
            found.append(known[target])
    return found


def probe() -> None:
    """Do what is forbidden."""
    for act in (
        lambda: socket.create_connection(("127.0.0.1", 9), 1),
        lambda: socket.getaddrinfo("localhost", 80),
        lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    ):
        try:
            act()
        except PermissionError:
            continue
        note("unnoticed")


if LOG_VARIABLE in os.environ and __name__ == "__main__":
    set_trap()
    if os.environ.get(PROBE_VARIABLE) == "worker" and "--worker" in sys.argv:
        probe()
