"""The books, read back: every household's points transactions and its balance."""

from collections import Counter
from datetime import datetime
from typing import NamedTuple

from api import Api
from replay import member_id
from retail import END


class Books(NamedTuple):
    """What the server has on record for one household."""

    earned: int
    spent: int
    expired: int
    outstanding: int  # after its last transaction up to the end of the story
    by_month: dict[str, Counter]
    balance: dict  # the balance read: as of now, not as of then


def read(api: Api, households: list[int]) -> dict[int, Books]:
    return dict(zip(households, api.for_each(lambda household: _read_one(api, household), households)))


def _read_one(api: Api, household: int) -> Books:
    path = f"/v1/members/{member_id(household)}/points"
    by_month = {"earned": Counter(), "spent": Counter(), "expired": Counter()}
    balance_after = None
    page = {"next_cursor": ""}
    while page["next_cursor"] is not None:
        page = api.get(f"{path}/transactions?limit=200" + (f"&cursor={page['next_cursor']}" if page["next_cursor"] else ""))
        for transaction in page["data"]:
            occurred_at = datetime.fromisoformat(transaction["occurred_at"])
            if occurred_at > END:
                continue  # expired since then: the server's own clock is years ahead of the story
            if balance_after is None:
                balance_after = transaction["balance_after"]  # newest first, so this is the closing balance
            # Apart from what is earned and what is spent, nothing happens to points in this story but their end.
            kind = {"EARN_ORDER": "earned", "USE_ORDER": "spent"}.get(transaction["type"], "expired")
            by_month[kind][f"{occurred_at:%Y-%m}"] += abs(transaction["points"])
    return Books(
        earned=by_month["earned"].total(),
        spent=by_month["spent"].total(),
        expired=by_month["expired"].total(),
        outstanding=balance_after or 0,
        by_month=by_month,
        balance=api.get(path),
    )
