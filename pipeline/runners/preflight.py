"""Checked on the cluster before a submitted job: its Python, Ray, and pagelake. Prints one line.

    python preflight.py VERSION

This file travels beside the job and runs by itself, on whatever Python the cluster has: it imports
nothing of pagelake's, and writes nothing that an old Python does not read.
"""

from __future__ import annotations

import sys

_NEEDED = ("ray", "torch", "transformers", "pyarrow", "pypdfium2", "llguidance", "obstore")


def complaint() -> str | None:
    """Return what keeps the job from running here, or None."""
    if not (3, 11) <= sys.version_info[:2] < (3, 14):
        found = ".".join(str(part) for part in sys.version_info[:3])
        return f"the cluster's Python is {found}, and pagelake needs 3.11 to 3.13"
    from importlib.util import find_spec

    if find_spec("pipeline") is None:
        return (
            f"the cluster's Python ({sys.executable}) has no pagelake; install it on all machines, "
            "or send it along with --wheel FILE or --source"
        )
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        what = ", ".join(missing)
        return f"the cluster's Python ({sys.executable}) lacks {what}; install it on all machines"
    return None


def warning() -> str | None:
    """Return in which way pagelake here is not the one that the job was submitted with, or None."""
    from pipeline import __version__

    if __version__ == sys.argv[1]:
        return None
    return f"the cluster has pagelake {__version__}, and the job was submitted with {sys.argv[1]}"


if __name__ == "__main__":
    found = complaint()
    if found:
        print("pagelake: " + found, file=sys.stderr)
        sys.exit(2)
    found = warning()
    if found:
        print("warning: " + found, file=sys.stderr)
