"""The roofline as a picture."""

from __future__ import annotations

from pathlib import Path

from pipeline.bench.report import Report


def plot_roofline(report: Report, picture: Path) -> None:
    """Draw the machine's roof and what the stages reach under it; the suffix says the format.

    Needs matplotlib. Raises OSError if the file cannot be written.
    """
    from matplotlib.figure import Figure

    roof = report.roofline
    ridge = roof.flops / roof.bandwidth
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    reached = [ridge]
    for row in report.stages:
        if row.flops_a_page and row.bytes_a_page:
            intensity = row.flops_a_page / row.bytes_a_page
            reached.append(intensity)
            share = f"{row.stage}, {row.utilisation:.0%} of the roof"
            axes.plot(intensity, row.flops_a_page / row.seconds_a_page, "o", label=share)
    ends = [min(reached) / 4, ridge, max(reached) * 4]
    axes.plot(ends, [min(roof.flops, x * roof.bandwidth) for x in ends], "k-", zorder=0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("operations a byte")
    axes.set_ylabel("operations a second")
    axes.set_title(f"{report.setup.model}, {report.setup.dtype}, {report.setup.machine}")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(picture)
