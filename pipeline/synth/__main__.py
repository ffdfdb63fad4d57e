"""Write the demo set, or with `--count` a corpus: `python -m pipeline.synth OUT_DIR`."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.synth.corpus import write_corpus
from pipeline.synth.demo import write_demo
from pipeline.synth.words import Split


def main() -> None:
    """Read the command line and write the set."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.synth", description=__doc__)
    parser.add_argument("out_dir", type=Path, help="folder to write documents/ and truth.jsonl to")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another set (0)")
    parser.add_argument("--count", type=int, help="write a corpus of so many documents instead")
    parser.add_argument(
        "--split", type=Split, choices=list(Split), default=Split.TEST, help="of the corpus (test)"
    )
    arguments = parser.parse_args()
    folder, seed = arguments.out_dir, arguments.seed
    if arguments.count is None:
        count = write_demo(folder, seed)
    else:
        count = write_corpus(folder, seed, arguments.count, arguments.split)
    print(f"wrote {count} documents to {folder}")


if __name__ == "__main__":
    main()
