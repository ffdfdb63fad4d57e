"""Options that several commands about a job take."""

from __future__ import annotations

from typing import Annotated

import typer

JobFile = Annotated[str, typer.Argument(help="A job file, or the name of a packaged job: demo.")]
Inputs = Annotated[
    list[str] | None, typer.Option("--input", help="Read this instead; may be repeated.")
]
OutputUri = Annotated[str | None, typer.Option("--output", help="Write here instead.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the job file."),
]
Retry = Annotated[
    str | None,
    typer.Option(metavar="KIND,...", help="Of the failed pages, do only these kinds again."),
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Start over; old tables stay until the new are done.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Read so many documents only.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
