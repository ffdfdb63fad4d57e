"""What thousands of crashes of the render process leave behind in its parent: nothing.

    python infra/proofs/renderer_crashes.py --crashes 2000

Each round draws a page that inflates to 4 GiB under a limit of 64 MiB, which kills the process, and
then a good page, which must come out of a new process as the first one did. Memory (PSS and RSS),
open files and child processes of the parent are read after a tenth of the crashes and at the end;
exits 1 if any grew by more than 5%. Linux only. A crash costs about a third of a second of CPU,
which is Python's start in the new process.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil

from pipeline.errors import ItemError
from pipeline.models.base import PagePlan
from pipeline.records import FailureKind
from pipeline.render.renderer import Renderer

sys.path.append(str(Path(__file__).parents[2] / "tests" / "faults"))
import poison_pdf

_LIMITS = SimpleNamespace(renderer="pdfium", cpu_s=5.0, wall_s=60.0, memory_mb=64)
_ALLOWED = 1.05
_DEATHS = (FailureKind.RENDER_MEMORY, FailureKind.RENDER_CRASH)


def measure() -> dict[str, int]:
    """PSS and RSS in kB, open files and children of this process."""
    rollup = Path("/proc/self/smaps_rollup").read_text()
    sizes = dict(re.findall(r"^(Pss|Rss): +(\d+) kB$", rollup, re.M))
    me = psutil.Process()
    return {
        "pss_kb": int(sizes["Pss"]),
        "rss_kb": int(sizes["Rss"]),
        "files": me.num_fds(),
        "children": len(me.children(recursive=True)),
    }


def crash(renderer: Renderer, bomb: bytes) -> None:
    """Let the process die once, of the page."""
    renderer.open(bomb)
    try:
        renderer.draw(1)
    except ItemError as error:
        if error.kind in _DEATHS:
            return
        raise
    raise SystemExit("the bomb was drawn")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--crashes", type=int, default=2000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    bomb, good = poison_pdf.zip_bomb(), poison_pdf.good()
    early: dict[str, int] = {}
    started = time.monotonic()
    os.environ["PATH"] = ""  # poppler would try the bomb too, for all of its time
    plan = PagePlan(200, 200, 200, 200)
    with Renderer(_LIMITS, lambda *_: plan) as renderer:
        renderer.open(good)
        first = renderer.draw(1)
        for number in range(1, options.crashes + 1):
            crash(renderer, bomb)
            renderer.open(good)
            page = renderer.draw(1)
            assert page.image.tobytes() == first.image.tobytes()
            assert page.words == first.words
            if number == max(1, options.crashes // 10):
                early = measure()
        late = measure()

    grown = {name: late[name] / early[name] for name in early}
    flat = max(grown.values()) <= _ALLOWED
    seconds = round(time.monotonic() - started, 1)
    report = {"crashes": options.crashes, "wall_s": seconds, "early": early, "late": late}
    if options.json:
        print(json.dumps(report | {"flat": flat}))
    else:
        print(f"{options.crashes} crashes in {seconds:g} s: {'flat' if flat else 'GROWN'}")
        for name, share in grown.items():
            print(f"{name:10}{early[name]:10}{late[name]:10}{share - 1:+9.1%}")
    sys.exit(0 if flat else 1)


if __name__ == "__main__":
    main()
