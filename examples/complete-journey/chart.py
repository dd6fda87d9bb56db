"""The year in one picture."""

from collections import Counter
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # draws to a file, needs no screen
from matplotlib import pyplot
from matplotlib.ticker import FuncFormatter

BLUE, GREEN, RED, GREY, INK = "#3b6fb6", "#4a9d6e", "#c8553d", "#a9adb3", "#22262b"


def draw(file: Path, by_month: dict[str, Counter]) -> None:
    """Draw the monthly counts: issued, used and refused coupons; earned, spent and expired points."""
    months = sorted(set().union(*by_month.values()))
    series = {name: [counts[month] for month in months] for name, counts in by_month.items()}
    outstanding, balance = [], 0
    for earned, spent, expired in zip(series["earned"], series["spent"], series["expired"]):
        balance += earned - spent - expired
        outstanding.append(balance)

    figure, (issued, redeemed, points) = pyplot.subplots(
        3, 1, figsize=(10, 10), sharex=True, height_ratios=(2, 2, 3), layout="constrained"
    )
    figure.suptitle("A year of retail, replayed", color=INK, fontsize=14)
    places = range(len(months))

    issued.bar(places, series["issued"], color=BLUE)
    issued.set_title("Coupons issued", loc="left")

    redeemed.bar(places, series["used"], color=GREEN, label="used")
    redeemed.bar(places, series["refused"], bottom=series["used"], color=RED, label="refused")
    redeemed.set_title("Redemptions", loc="left")
    redeemed.legend(frameon=False)

    width = 0.28
    for shift, (name, color) in enumerate((("earned", GREEN), ("spent", BLUE), ("expired", GREY)), start=-1):
        points.bar([place + shift * width for place in places], series[name], width, color=color, label=name)
    points.plot(places, outstanding, color=INK, marker="o", markersize=4, label="outstanding at the month's end")
    points.set_title("Points", loc="left")
    points.legend(frameon=False)
    points.set_xticks(places, months, rotation=45, ha="right")

    for axes in (issued, redeemed, points):
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=120)
