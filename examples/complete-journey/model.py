"""What the server must answer, worked out without it.

The rules of the story are few enough to say again in a page of Python. This is that page: it shares no code with the
replay, so when both arrive at the same numbers, neither got them by mistake.
"""

from collections import Counter, deque
from datetime import datetime, timedelta
from typing import NamedTuple

from retail import END, Retail

LIFETIME = timedelta(days=90)
SPEND_FROM = 1000
SPEND = 500


class Account(NamedTuple):
    """One household's points when the books are closed."""

    grants: int
    earned: int
    debits: int
    spent: int
    expired: int
    outstanding: int
    lots: tuple[tuple[int, datetime], ...]  # what is left: (points, when they expire)

    def available_at(self, moment: datetime) -> int:
        return sum(points for points, expires_at in self.lots if expires_at > moment)


def accounts(retail: Retail) -> dict[int, Account]:
    baskets = {household: [] for household in retail.households}
    for basket in retail.baskets:
        baskets[basket.household].append(basket)
    return {household: _account(its_baskets) for household, its_baskets in baskets.items()}


def _account(baskets) -> Account:
    # All points live equally long, so the oldest lot is always the next to expire and the next to be spent.
    lots: deque[tuple[int, datetime]] = deque()
    earned = debits = expired = 0

    def expire(now: datetime) -> int:
        lost = 0
        while lots and lots[0][1] <= now:
            lost += lots.popleft()[0]
        return lost

    for basket in baskets:
        expired += expire(basket.at)
        lots.append((basket.points, basket.at + LIFETIME))
        earned += basket.points
        if sum(points for points, _ in lots) >= SPEND_FROM:
            debits += 1
            due = SPEND
            while due > 0:
                points, expires_at = lots.popleft()
                if points > due:
                    lots.appendleft((points - due, expires_at))
                due -= min(points, due)
    expired += expire(END)

    outstanding = sum(points for points, _ in lots)
    return Account(len(baskets), earned, debits, debits * SPEND, expired, outstanding, tuple(lots))


def liability(accounts: dict[int, Account]) -> dict[str, int]:
    """What the shop owes when the books are closed, by the month in which it would expire."""
    by_month = Counter()
    for account in accounts.values():
        for points, expires_at in account.lots:
            by_month[f"{expires_at:%Y-%m}"] += points
    return {
        "issued": sum(account.earned for account in accounts.values()),
        "redeemed": sum(account.spent for account in accounts.values()),
        "expired": sum(account.expired for account in accounts.values()),
        "outstanding": sum(account.outstanding for account in accounts.values()),
    } | {f"outstanding until {month}": points for month, points in sorted(by_month.items())}


def expected(retail: Retail) -> dict[str, int]:
    """The figures of the report that no machine's speed can change."""
    coupons = {(template, household) for template in retail.templates for household in retail.recipients(template)}
    used = set()
    for redemption in retail.redemptions:
        coupon = (redemption.template, redemption.household)
        start, end = retail.windows[redemption.template.campaign]
        if coupon in coupons and coupon not in used and start <= redemption.at < end:
            used.add(coupon)
    over = {coupon for coupon in coupons if retail.windows[coupon[0].campaign][1] <= END}

    ledger = accounts(retail).values()
    return {
        "templates": len(retail.templates),
        "coupons_issued": len(coupons),
        "redemptions_used": len(used),
        "redemptions_refused": len(retail.redemptions) - len(used),
        "coupons_expired": len(over - used),
        "grants": sum(account.grants for account in ledger),
        "points_earned": sum(account.earned for account in ledger),
        "debits": sum(account.debits for account in ledger),
        "points_spent": sum(account.spent for account in ledger),
        "points_expired": sum(account.expired for account in ledger),
        "points_outstanding": sum(account.outstanding for account in ledger),
    }
