"""Replay a year of retail through Scrip's public API, and check every figure that comes out of it."""

import argparse
import json
import os
import sys
import time
from collections import Counter
from datetime import date, datetime
from pathlib import Path

import chart
import ledger
import model
import retail
from api import Api, Unexpected
from replay import Replay, rfc3339

# What CI replays: small enough for seconds, large enough to hold refusals, debits and expiries.
SLICE = {"households": 120, "until": date(2017, 6, 30)}

# What must be the same whenever the same data is replayed, the second time on the same server included.
FIGURES = (
    "templates",
    "coupons_issued",
    "redemptions_used",
    "redemptions_refused",
    "coupons_expired",
    "grants",
    "points_earned",
    "debits",
    "points_spent",
    "points_expired",
    "points_outstanding",
)


def main() -> int:
    options = arguments()
    data = retail.load(options.households, options.until)
    if options.expect:
        print(json.dumps(model.expected(data), indent=2))
        return 0

    print("Read " + ", ".join(f"{count:,} {name}" for name, count in data.counts.items()) + ".")
    if len(data.households) < data.counts["households"] or options.until:
        through = f" through {options.until}" if options.until else ""
        print(f"Replaying the first {len(data.households):,} households{through}.")
    sys.stdout.flush()

    api = Api(options.url, options.key)
    replay = Replay(api, data)
    started = time.monotonic()
    replay.run()
    seconds = time.monotonic() - started

    books = ledger.read(api, data.households)
    liability = api.get(f"/v1/reports/points-liability?as_of={rfc3339(retail.END)}")
    report = make_report(replay, books, seconds)
    by_month = replay.by_month | {
        name: sum((its.by_month[name] for its in books.values()), Counter()) for name in ("earned", "spent", "expired")
    }

    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    chart.draw(options.out / "journey.png", by_month)
    print_report(report, options.out)

    differences = compare(model.expected(data), report, "the model")
    differences += compare_households(model.accounts(data), books)
    differences += compare_liability(model.liability(model.accounts(data)), liability)
    if options.same_as:
        first = json.loads(options.same_as.read_text())
        differences += compare({name: first[name] for name in FIGURES}, report, str(options.same_as))
    if differences:
        print("\nThe figures differ:\n  " + "\n  ".join(differences), file=sys.stderr)
        return 1
    print(f"Checked: every total, all {len(books):,} households' books and the liability agree with the model, to the point.")
    if options.same_as:
        print(f"Checked: the same figures as in {options.same_as}.")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="the server (default: %(default)s)")
    parser.add_argument("--key", default=os.environ.get("SCRIP_KEY"), help="an operator key (default: $SCRIP_KEY)")
    parser.add_argument("--out", type=Path, default=Path("out"), help="where the report goes (default: %(default)s)")
    parser.add_argument("--households", type=int, metavar="N", help="only the first N households by id")
    parser.add_argument("--until", type=date.fromisoformat, metavar="DATE", help="only through this day")
    parser.add_argument(
        "--slice",
        action="store_true",
        help=f"short for --households {SLICE['households']} --until {SLICE['until']}",
    )
    parser.add_argument("--expect", action="store_true", help="print the expected figures as JSON; needs no server")
    parser.add_argument("--same-as", type=Path, metavar="REPORT", help="fail unless this report.json has the same figures")
    options = parser.parse_args()
    if options.slice:
        vars(options).update(SLICE)
    if not options.expect and not options.key:
        parser.error("an operator key is needed: --key or SCRIP_KEY")
    return options


def make_report(replay: Replay, books: dict[int, ledger.Books], seconds: float) -> dict:
    balances = [its.balance for its in books.values()]
    report = dict(replay.tally)
    report |= {
        "points_earned": sum(its.earned for its in books.values()),
        "points_spent": sum(its.spent for its in books.values()),
        "points_expired": sum(its.expired for its in books.values()),
        "points_outstanding": sum(its.outstanding for its in books.values()),
    }
    return {name: report.get(name, 0) for name in FIGURES} | {
        "refusals": dict(replay.refusals),
        "balances_today": {
            "as_of": max(balance["as_of"] for balance in balances),
            **{name: sum(balance[name] for balance in balances) for name in ("available", "used", "expired")},
        },
        "operations": report["operations"],
        "replayed": report["replayed"],
        "seconds": round(seconds, 1),
        "operations_per_second": round(report["operations"] / seconds),
    }


def print_report(report: dict, out: Path) -> None:
    today = report["balances_today"]
    refusals = ", ".join(f"{count:,} {code}" for code, count in report["refusals"].items())
    rows = [
        ("Coupon templates", report["templates"], ""),
        ("Coupons issued", report["coupons_issued"], ""),
        ("  used", report["redemptions_used"], ""),
        ("  expired unused", report["coupons_expired"], "by 2018-01-02"),
        ("Redemptions refused", report["redemptions_refused"], refusals),
        ("Points earned", report["points_earned"], f"in {report['grants']:,} grants"),
        ("  spent", report["points_spent"], f"in {report['debits']:,} debits"),
        ("  expired", report["points_expired"], "90 days after they were earned"),
        ("  outstanding", report["points_outstanding"], "on 2018-01-02"),
        ("  available today", today["available"], f"as of {today['as_of'][:10]}"),
        ("Operations", report["operations"], f"{report['replayed']:,} of them replayed from an earlier run"),
        ("Seconds", report["seconds"], f"{report['operations_per_second']:,} operations a second"),
    ]
    print()
    for name, value, remark in rows:
        print(f"  {name:<20}{value:>12,}  {remark}".rstrip())
    print(f"\nWritten: {out / 'report.json'}, {out / 'journey.png'}")


def compare(expected: dict, found: dict, whose: str) -> list[str]:
    return [
        f"{name}: {found[name]:,} by the API, {value:,} by {whose}"
        for name, value in expected.items()
        if found[name] != value
    ]


def compare_liability(expected: dict[str, int], liability: dict) -> list[str]:
    found = {name: liability[name] for name in ("issued", "redeemed", "expired", "outstanding")}
    found |= {f"outstanding until {month['month']}": month["points"] for month in liability["by_month"]}
    if found.keys() != expected.keys():
        return [f"the liability has {sorted(found)}, the model {sorted(expected)}"]
    return compare(expected, found, "the model")


def compare_households(accounts: dict[int, model.Account], books: dict[int, ledger.Books]) -> list[str]:
    """Compare each household's books, and its balance as of the moment the server read it; name the first that differs."""
    for household, account in accounts.items():
        its = books[household]
        available = account.available_at(datetime.fromisoformat(its.balance["as_of"]))
        expected = {
            "earned": account.earned,
            "spent": account.spent,
            "expired": account.expired,
            "outstanding": account.outstanding,
            "balance available": available,
            "balance used": account.spent,
            "balance expired": account.earned - account.spent - available,
        }
        found = {
            "earned": its.earned,
            "spent": its.spent,
            "expired": its.expired,
            "outstanding": its.outstanding,
            **{f"balance {name}": its.balance[name] for name in ("available", "used", "expired")},
        }
        differences = compare(expected, found, "the model")
        if differences:
            return [f"household {household}, {difference}" for difference in differences]
    return []


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Unexpected as problem:
        sys.exit(f"\n{problem}")
