"""Write the demo set: `python -m pipeline.synth OUT_DIR [--seed N]`."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.synth.demo import write_demo


def main() -> None:
    """Read the command line and write the set."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.synth", description=__doc__)
    parser.add_argument("out_dir", type=Path, help="folder to write documents/ and truth.jsonl to")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another set (0)")
    arguments = parser.parse_args()
    count = write_demo(arguments.out_dir, arguments.seed)
    print(f"wrote {count} documents to {arguments.out_dir}")


if __name__ == "__main__":
    main()
