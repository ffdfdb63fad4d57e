"""Write tickets to train on and others to test on: `python -m pipeline.synth.tickets OUT_DIR`.

::

    train/documents/...   train/truth.jsonl     words and values of the training split only
    test/documents/...    test/truth.jsonl      and these of the test split only
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from pipeline.synth.files import Kind, LabelledFile, printed_file, write_files
from pipeline.synth.ticket import make_ticket
from pipeline.synth.words import Split

_KINDS = ((Kind.IMAGE, ".png"), (Kind.PDF, ".pdf"))


def ticket_files(seed: int, count: int, split: Split) -> Iterator[LabelledFile]:
    """Yield `count` tickets, images of any look and clean PDFs in turn.

    The i-th does not depend on `count`.
    """
    for index in range(count):
        page = make_ticket(f"{split} {seed}/{index}", split)
        kind, suffix = _KINDS[index % len(_KINDS)]
        name = f"ticket-{index:05d}"
        yield printed_file((page,), page.ticket.to_json(), kind, name, suffix, scale=1)


def main() -> None:
    """Read the command line and write both sets."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.synth.tickets", description=__doc__)
    parser.add_argument("out_dir", type=Path, help="folder to write train/ and test/ to")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other tickets (0)")
    parser.add_argument("--train", type=int, default=1200, help="how many to train on (1200)")
    parser.add_argument("--test", type=int, default=120, help="how many to test on (120)")
    arguments = parser.parse_args()
    counts = {Split.TRAIN: arguments.train, Split.TEST: arguments.test}
    for split, count in counts.items():
        folder = arguments.out_dir / split
        write_files(folder, ticket_files(arguments.seed, count, split))
        print(f"wrote {count} tickets to {folder}")


if __name__ == "__main__":
    main()
