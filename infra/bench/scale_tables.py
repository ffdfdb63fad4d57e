"""The tables of `scale_sim.py`: which graphs are simulated, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from scale_sim import Graph, Outcome

Simulate = Callable[[Graph], Outcome]
Costs = Mapping[str, Mapping[str, float]]

GPUS = {
    # Computed from FLOPs and bytes of Idefics2-8B on one H100, batch 64, 300 tokens; not measured.
    "A4 at 980": 23.4,
    "A4 with splitting": 12.5,
}
"""Pages a second of one GPU."""
SLOTS = 64
SPREAD = 0.3
"""Coefficient of variation of the lengths of answers, as measured for receipts."""
GPUS_A_NODE = 8
PLENTY = 512
"""Cores that are never short."""
BATCHES = 48
"""Pages of a run, in batches of an actor: few at first, or at last, show in its rate."""
STORE_BYTES = 160 << 20
"""What of the object store a GPU has, so little that drawing cannot run far ahead: in a run of days
every page is drawn while another one is answered."""


def graph(costs: Mapping[str, float], driver_ms: float, **rest: Any) -> Graph:
    """Return a graph with measured costs: milliseconds a page, and of the driver a page."""
    return Graph(
        draw_s=(costs["draw_ms"] + costs["pack_ms"]) / 1000,
        answer_s=costs["unpack_ms"] / 1000,
        commit_s=(costs["answers_ms"] + costs["commit_ms"]) / 1000,
        driver_s=driver_ms * 16 / 1000,
        sample_bytes=costs["sample_bytes"],
        **rest,
    )


def tables(costs: Costs, runs: Mapping[str, Any], simulate: Simulate) -> str:
    """Simulate, and write it all down in Markdown."""
    driver_ms = runs["driver_ms_a_page"]
    parts = [_measured(costs, runs, simulate)]
    for name, rate in GPUS.items():
        parts.append(_cores(name, costs[name], driver_ms, rate, simulate))
    parts.append(_driver(costs["A4 at 980"], driver_ms, GPUS["A4 at 980"], simulate))
    return "\n\n".join(parts)


def simulated(
    costs: Costs, runs: Mapping[str, Any], simulate: Simulate
) -> list[tuple[int, float, float]]:
    """Return, for each run of `infra/proofs/scaling.py`, its actors and the pages a second that
    were measured and that are simulated."""
    found = []
    for run in runs["scaling"]:
        asked = graph(
            costs["tiny images"],
            runs["driver_ms_a_page"],
            pages=int(run["pages"]),
            actors=int(run["actors"]),
            slots=1,
            page_s=0.2,
            spread=0.0,
            cores=2,
        )
        found.append((asked.actors, run["pages_per_s"], simulate(asked).pages_per_s))
    return found


def _measured(costs: Costs, runs: Mapping[str, Any], simulate: Simulate) -> str:
    rows = [
        [str(actors), f"{measured:.2f}", f"{rate:.2f}", f"{rate / measured - 1:+.1%}"]
        for actors, measured, rate in simulated(costs, runs, simulate)
    ]
    return _table(["actors", "measured pages/s", "simulated", "off by"], rows)


def _gpu(costs: Mapping[str, float], driver_ms: float, rate: float, gpus: int, cores: int) -> Graph:
    return graph(
        costs,
        driver_ms,
        pages=gpus * SLOTS * BATCHES,
        actors=gpus,
        slots=SLOTS,
        page_s=SLOTS / rate,
        spread=SPREAD,
        cores=cores,
        store_bytes=gpus * STORE_BYTES,
    )


def _cores(
    name: str, costs: Mapping[str, float], driver_ms: float, rate: float, simulate: Simulate
) -> str:
    rows = []
    for cores in (1, 2, 3, 4, 5, 6, 8, 16):
        found = simulate(_gpu(costs, driver_ms, rate, GPUS_A_NODE, cores))
        rows.append(
            [
                str(cores),
                f"{found.pages_per_s:.1f}",
                f"{found.pages_per_s / (GPUS_A_NODE * rate):.0%}",
                f"{found.cores_busy:.0%}",
                f"{found.store_peak / 1e6:.0f}",
            ]
        )
    title = f"**{name}, {GPUS_A_NODE} GPUs of {rate} pages/s each (computed)**"
    heads = ["cores for them", "pages/s", "of the GPUs", "cores busy", "store MB"]
    return f"{title}\n\n" + _table(heads, rows)


def _driver(costs: Mapping[str, float], driver_ms: float, rate: float, simulate: Simulate) -> str:
    rows = []
    for gpus in (1, 4, 8, 16, 32, 64):
        found = simulate(_gpu(costs, driver_ms, rate, gpus, PLENTY))
        eased = simulate(replace(_gpu(costs, driver_ms, rate, gpus, PLENTY), driver_s=0.0))
        rows.append(
            [
                str(gpus),
                f"{found.pages_per_s:.0f}",
                f"{found.pages_per_s / (gpus * rate):.0%}",
                f"{found.driver_busy:.0%}",
                f"{eased.pages_per_s:.0f}",
            ]
        )
    heads = ["GPUs", "pages/s", "of linear", "driver busy", "with a driver that costs nothing"]
    return "**One driver before many GPUs, cores in plenty**\n\n" + _table(heads, rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
