"""What a renderer that a file has taken over can still do: read, and little else."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import psutil
import pytest

from pipeline.render.sandbox import scrubbed

FILTERED = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")

# Runs inside the sandbox; tells by name what was refused.
ATTEMPTS = """
import json, os, resource, socket, subprocess, sys, threading
from pathlib import Path
from pipeline.render import sandbox

threads = threading.Event()
late = []
def wait():  # a thread that is there already must be held to the same
    threads.wait()
    late.append(refused(socket.socket))
def refused(attempt):
    try:
        attempt()
    except OSError:
        return True
    return False

thread = threading.Thread(target=wait)
thread.start()
folder, parent = Path(sys.argv[1]), os.getppid()
canvas = os.open(folder / "canvas", os.O_RDWR)
filtered = sandbox.enter()
threads.set()
thread.join()
found = {
    "socket": refused(socket.socket),
    "socket in a thread": late[0],
    "create": refused(lambda: (folder / "new").touch()),
    "write": refused(lambda: (folder / "old").open("r+b")),
    "truncate": refused(lambda: os.ftruncate(canvas, 0)),
    "remove": refused(lambda: (folder / "old").unlink()),
    "rename": refused(lambda: (folder / "old").rename(folder / "other")),
    "chmod": refused(lambda: (folder / "old").chmod(0o777)),
    "signal": refused(lambda: os.kill(parent, 0)),
    "leave the group": refused(os.setsid),
    "lower the parent's limits": refused(
        lambda: resource.prlimit(parent, resource.RLIMIT_NOFILE, (9, 9))
    ),
    "write by a program": subprocess.run(
        ["/bin/sh", "-c", f"echo > {folder}/new"], stderr=subprocess.PIPE
    ).returncode != 0,
}
allowed = {
    "read": not refused((folder / "old").read_bytes),
    "start a program": subprocess.run(["/bin/sh", "-c", "exit 0"]).returncode == 0,
    "signal the own group": not refused(lambda: os.kill(0, 0)),
}
print(json.dumps([filtered, found, allowed]))
"""


@pytest.mark.skipif(not FILTERED, reason="no filter of system calls here")
def test_it_can_read_and_do_nothing_else(tmp_path):
    for name in ("old", "canvas"):
        (tmp_path / name).write_text("as it was")
    command = [sys.executable, "-c", ATTEMPTS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    filtered, refused, allowed = json.loads(done.stdout)
    assert filtered
    assert all(refused.values()), refused
    assert all(allowed.values()), allowed
    assert [path.read_text() for path in tmp_path.iterdir()] == ["as it was"] * 2


def test_the_renderer_is_shut_in_and_sees_no_secret(make_renderer, pdf_of, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setenv("PDF_PASSWORD", "s3cret")
    with make_renderer() as renderer:
        assert renderer.filtered is FILTERED
        (child,) = (
            process
            for process in psutil.Process().children()
            if process.status() != psutil.STATUS_ZOMBIE
            and "pipeline.render.child" in process.cmdline()
        )
        assert "s3cret" not in child.environ().values()
        assert child.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)
        renderer.open(pdf_of((b"/MediaBox [0 0 9 9]", b"0 0 9 9 re f")))
        assert renderer.draw(1).image[:400, :400].max() == 0


def test_the_environment_keeps_what_programs_need():
    environment = {
        "PATH": "/bin",
        "LC_ALL": "C",
        "TMPDIR": "/t",
        "AWS_PROFILE": "mine",
        "HF_TOKEN": "secret",
        "LD_PRELOAD": "/evil.so",
    }
    assert scrubbed(environment) == {"PATH": "/bin", "LC_ALL": "C", "TMPDIR": "/t"}
