"""The year itself: every mailing, redemption and basket as a command to the server, in order of time."""

from collections import Counter, deque
from datetime import datetime
from itertools import groupby
from typing import Iterator

from api import Api, Unexpected
from model import LIFETIME, SPEND, SPEND_FROM
from progress import Progress
from retail import END, Basket, Redemption, Retail, Template

# Baskets sent ahead of each other at most. A round of their grants and debits stays well within one batch request.
WINDOW = 2000
DISCOUNT = 100  # minor units; the data does not say what a coupon was worth


def rfc3339(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def member_id(household: int) -> str:
    return f"hh-{household}"


class Replay:
    def __init__(self, api: Api, retail: Retail):
        self.api = api
        self.retail = retail
        self.template_ids: dict[Template, str] = {}
        self.coupon_ids: dict[tuple[Template, int], str] = {}  # learnt from the answers to the claims
        self.available = dict.fromkeys(retail.households, 0)  # points, as the last answer said
        self.tally: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()  # by problem code
        self.by_month: dict[str, Counter[str]] = {name: Counter() for name in ("issued", "used", "refused")}
        claims = sum(len(retail.recipients(template)) for template in retail.templates)
        self.progress = Progress(len(retail.templates) + claims + len(retail.redemptions) + len(retail.baskets))

    def run(self) -> None:
        self.create_templates()
        for at, templates, redemptions, baskets in self.timeline():
            self.claim(at, templates)
            self.redeem(at, redemptions)
            for start in range(0, len(baskets), WINDOW):
                self.play_baskets(baskets[start : start + WINDOW])
        self.sweep()
        self.progress.finish(END)

    def timeline(self) -> Iterator[tuple[datetime, list[Template], list[Redemption], list[Basket]]]:
        """Cut the year at each moment something happens to coupons: what happens then, and the baskets until the next."""
        templates = {
            at: list(group)
            for at, group in groupby(sorted(self.retail.templates, key=self.mailing_time), key=self.mailing_time)
        }
        redemptions = {at: list(group) for at, group in groupby(self.retail.redemptions, key=lambda each: each.at)}
        baskets = deque(self.retail.baskets)
        moments = sorted({basket.at for basket in self.retail.baskets[:1]} | templates.keys() | redemptions.keys())
        for moment, following in zip(moments, moments[1:] + [END]):
            until_then = []
            while baskets and baskets[0].at < following:
                until_then.append(baskets.popleft())
            yield moment, templates.get(moment, []), redemptions.get(moment, []), until_then

    def mailing_time(self, template: Template) -> datetime:
        return self.retail.windows[template.campaign][0]

    def create_templates(self) -> None:
        for template in self.retail.templates:
            start, end = map(rfc3339, self.retail.windows[template.campaign])
            answer = self.api.post(
                "/v1/coupon-templates",
                {
                    "name": f"Campaign {template.campaign}, coupon {template.upc}",
                    "benefit": {"type": "AMOUNT_OFF", "amount": DISCOUNT},
                    "validity": {"type": "FIXED", "starts_at": start, "ends_at": end},
                    "distribution": {"starts_at": start, "ends_at": end},
                    "total_stock": None,
                    "limit_per_member": 1,
                },
                idempotency_key=f"cj-template-{template.campaign}-{template.upc}",
            )
            self.template_ids[template] = answer.json()["id"]
            self.count_operation(answer.replayed)
            self.tally["templates"] += 1
            self.progress.advance(1, self.mailing_time(template))

    def claim(self, at: datetime, templates: list[Template]) -> None:
        """Hand the campaign's coupons to every household that received it."""
        recipients = [(template, household) for template in templates for household in self.retail.recipients(template)]
        effective_at, month = rfc3339(at), f"{at:%Y-%m}"
        lines = [
            {
                "op": "claim",
                "template_id": self.template_ids[template],
                "member_id": member_id(household),
                "idempotency_key": f"cj-claim-{template.campaign}-{template.upc}-{household}",
                "effective_at": effective_at,
            }
            for template, household in recipients
        ]
        for recipient, (line, answer) in zip(recipients, self.api.batch(lines)):
            self.coupon_ids[recipient] = self.accepted(line, answer)["id"]
            self.tally["coupons_issued"] += 1
            self.by_month["issued"][month] += 1
            self.progress.advance(1, at)

    def redeem(self, at: datetime, redemptions: list[Redemption]) -> None:
        """Lock each coupon for its order and use it. Whether that is still possible, the server decides."""
        asked, lines = [], []
        for redemption in redemptions:
            coupon_id = self.coupon_ids.get((redemption.template, redemption.household)) or self.find_coupon(redemption)
            if coupon_id is None:
                self.refuse(redemption, "no such coupon")
                continue
            asked.append(redemption)
            command = {"coupon_id": coupon_id, "order_id": f"cj-{redemption.row}", "effective_at": rfc3339(at)}
            lines.append({"op": "lock", **command, "idempotency_key": f"cj-lock-{redemption.row}"})
            lines.append(
                {"op": "use", **command, "discount_amount": DISCOUNT, "idempotency_key": f"cj-use-{redemption.row}"}
            )

        answers = self.api.batch(lines)
        for redemption, (lock_line, lock), (use_line, use) in zip(asked, answers, answers):
            if self.refused(lock):
                # The use of a coupon that is not locked for this order must be refused as well.
                if not self.refused(use):
                    raise unexpected(use_line, use)
                self.count_operation(False)
                self.count_operation(False)
                self.refuse(redemption, lock["error"]["code"])
            else:
                self.accepted(lock_line, lock)
                self.accepted(use_line, use)
                self.tally["redemptions_used"] += 1
                self.by_month["used"][f"{at:%Y-%m}"] += 1
                self.progress.advance(1, at)

    def find_coupon(self, redemption: Redemption) -> str | None:
        """Ask the server for a coupon that no claim of this replay has told us of."""
        path = f"/v1/members/{member_id(redemption.household)}/coupons"
        found = self.api.get(f"{path}?template_id={self.template_ids[redemption.template]}")["data"]
        return found[0]["id"] if found else None

    def refuse(self, redemption: Redemption, code: str) -> None:
        self.tally["redemptions_refused"] += 1
        self.refusals[code] += 1
        self.by_month["refused"][f"{redemption.at:%Y-%m}"] += 1
        self.progress.advance(1, redemption.at)

    def play_baskets(self, baskets: list[Basket]) -> None:
        """Grant each basket's points, and spend 500 whenever a grant leaves a household 1,000 or more.

        Households do not depend on each other, but a household's next step may depend on its last answer. So the
        baskets go out in rounds: each household sends as much as it can decide by now.
        """
        waiting: dict[int, deque[Basket]] = {}
        for basket in baskets:
            waiting.setdefault(basket.household, deque()).append(basket)
        owed: dict[int, Basket] = {}  # household -> the basket whose grant made it spend

        while waiting or owed:
            steps: list[Basket] = []
            lines = []
            for household in sorted(waiting.keys() | owed.keys()):
                # Points can expire before the next basket, never appear: what may be there is at most this.
                ceiling = self.available[household]
                if household in owed:
                    steps.append(owed[household])
                    lines.append(self.debit_line(owed[household]))
                    ceiling -= SPEND
                queue = waiting.get(household, ())
                while queue:
                    basket = queue.popleft()
                    steps.append(basket)
                    lines.append(self.grant_line(basket))
                    ceiling += basket.points
                    if ceiling >= SPEND_FROM:
                        break  # only the answer tells whether this one is followed by a debit
            waiting = {household: queue for household, queue in waiting.items() if queue}
            owed = {}

            for basket, (line, answer) in zip(steps, self.api.batch(lines)):
                transaction = self.accepted(line, answer)
                self.available[basket.household] = transaction["balance_after"]
                if line["op"] == "debit":
                    self.tally["debits"] += 1
                else:
                    self.tally["grants"] += 1
                    self.progress.advance(1, basket.at)
                    if transaction["balance_after"] >= SPEND_FROM:
                        owed[basket.household] = basket

    def grant_line(self, basket: Basket) -> dict:
        return {
            "op": "grant",
            "member_id": member_id(basket.household),
            "points": basket.points,
            "reference": str(basket.id),
            "expires_at": rfc3339(basket.at + LIFETIME),
            "idempotency_key": f"cj-grant-{basket.id}",
            "effective_at": rfc3339(basket.at),
        }

    def debit_line(self, basket: Basket) -> dict:
        return {
            "op": "debit",
            "member_id": member_id(basket.household),
            "points": SPEND,
            "reference": str(basket.id),
            "idempotency_key": f"cj-debit-{basket.id}",
            "effective_at": rfc3339(basket.at),
        }

    def sweep(self) -> None:
        """Close the books: post every expiry up to the end of the story."""
        done = False
        calls = 0
        while not done:
            calls += 1
            answer = self.api.post(
                "/v1/expirations", {"limit": 1000, "effective_at": rfc3339(END)}, idempotency_key=f"cj-sweep-{calls}"
            )
            swept = answer.json()
            self.count_operation(answer.replayed)
            self.tally["coupons_expired"] += swept["coupons_expired"]
            done = swept["done"]
            self.progress.advance(0, END)

    def accepted(self, line: dict, answer: dict) -> dict:
        """The body of a command that had to succeed."""
        if not 200 <= answer["status"] < 300:
            raise unexpected(line, answer)
        self.count_operation(answer.get("replayed", False))
        return answer["body"]

    def refused(self, answer: dict) -> bool:
        return answer["status"] in (409, 422)

    def count_operation(self, replayed: bool) -> None:
        self.tally["operations"] += 1
        self.tally["replayed"] += replayed


def unexpected(line: dict, answer: dict) -> Unexpected:
    return Unexpected(f"The line {line}\nwas answered {answer['status']}: {answer.get('error') or answer.get('body')}")
