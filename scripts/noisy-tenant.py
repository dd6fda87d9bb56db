#!/usr/bin/env python3
"""What a tenant that sends ten times its quota does to another's claims.

    SCRIP_BIN=target/release/scrip scripts/noisy-tenant.py STORE [ROUNDS]

Each round measures the quiet tenant (three quarters of the quota, open loop: latency counts from when a request was due) on its
own, then beside the noisy one. The medians over the rounds are compared; more than a fifth of P99 fails.
"""

import asyncio
import json
import os
import statistics
import sys
import time
from collections import Counter

from scrip_process import Scrip

QUOTA = int(os.environ.get("SCRIP_NOISY_QUOTA", "200"))
SECONDS = float(os.environ.get("SCRIP_NOISY_SECONDS", "8"))


class Tenant:
    def __init__(self, scrip):
        self.port, self.key, self.sent = scrip.port, scrip.shop(), 0
        template = {
            "name": "t",
            "benefit": {"type": "AMOUNT_OFF", "amount": 1},
            "validity": {"type": "RELATIVE", "days": 30},
        }
        self.template = scrip.make("/v1/coupon-templates", self.key, template)["id"]

    def request(self):
        self.sent += 1
        body = json.dumps({"member_id": f"m-{self.sent}"})
        return (
            f"POST /v1/coupon-templates/{self.template}/claims HTTP/1.1\r\nhost: scrip\r\nauthorization: Bearer {self.key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}"
        ).encode()

    async def claim(self, reader, writer):
        writer.write(self.request())
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]))
        return int(head[9:12])

    async def claims(self, rate, connections):
        """Claims at a rate for a while: the status and the latency of each."""
        free, answers, tasks = asyncio.Queue(), [], []
        for _ in range(connections):
            free.put_nowait(await asyncio.open_connection("127.0.0.1", self.port))

        async def one(due):
            connection = await free.get()
            status = await self.claim(*connection)
            answers.append((status, time.perf_counter() - due))
            free.put_nowait(connection)

        begun = time.perf_counter()
        for number in range(int(rate * SECONDS)):
            due = begun + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(one(due)))
        await asyncio.gather(*tasks)
        while not free.empty():
            free.get_nowait()[1].close()
        return answers


def percentile_ms(answers, share):
    latencies = sorted(latency for status, latency in answers if status == 201)
    return latencies[int(len(latencies) * share)] * 1e3


async def main(store, rounds=5):
    scrip = Scrip(store, SCRIP_QUOTA__REQUESTS_PER_SECOND=str(QUOTA))
    quiet, noisy = Tenant(scrip), Tenant(scrip)
    p99 = {"alone": [], "beside": []}
    for number in range(int(rounds)):
        alone = await quiet.claims(QUOTA * 0.75, 16)
        beside, noise = await asyncio.gather(quiet.claims(QUOTA * 0.75, 16), noisy.claims(QUOTA * 10, 64))
        for name, answers in [("alone", alone), ("beside", beside)]:
            refused = [status for status, _ in answers if status != 201]
            if refused:
                raise SystemExit(f"the quiet tenant was refused: {Counter(refused)}")
            p99[name].append(percentile_ms(answers, 0.99))
        answered = dict(Counter(status for status, _ in noise))
        shown = (f"P50 {percentile_ms(a, 0.5):.2f} P99 {percentile_ms(a, 0.99):.2f} ms" for a in (alone, beside))
        print("round {}: alone {}, beside {}; the noisy one was answered {}".format(number + 1, *shown, answered), flush=True)
    scrip.stop()
    alone, beside = statistics.median(p99["alone"]), statistics.median(p99["beside"])
    print(f"median P99: alone {alone:.2f} ms, beside {beside:.2f} ms: {100 * (beside / alone - 1):+.1f} %")
    if beside > alone * 1.2:
        raise SystemExit("the noisy tenant moves the other's P99 by more than a fifth")


asyncio.run(main(*sys.argv[1:]))
