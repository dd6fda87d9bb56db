"""A small client of the HTTP API: keep-alive, bounded retries, and batches over two connections."""

import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from itertools import count
from typing import Any, Iterable, Iterator, NamedTuple
from urllib.parse import urlsplit

# Lines of one request; the API takes 10,000. Lines whose order matters must fit in one, for two requests may overlap.
CHUNK = 5000
CONNECTIONS = 2
ATTEMPTS = 8


class Unexpected(Exception):
    """An answer the story has no place for; it says what was asked and what came back."""


class Answer(NamedTuple):
    status: int
    replayed: bool
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Api:
    def __init__(self, url: str, key: str):
        self.url = urlsplit(url)
        self.headers = {"Authorization": f"Bearer {key}"}
        self.connections = threading.local()  # each thread keeps its own open
        self.threads = ThreadPoolExecutor(CONNECTIONS)

    def get(self, path: str) -> Any:
        return self._accepted("GET", path, None, {}).json()

    def post(self, path: str, body: dict, idempotency_key: str | None = None) -> Answer:
        headers = {"Content-Type": "application/json"}
        if idempotency_key:
            headers["Idempotency-Key"] = idempotency_key
        return self._accepted("POST", path, json.dumps(body).encode(), headers)

    def batch(self, lines: list[dict]) -> Iterator[tuple[dict, dict]]:
        """Send the commands; give each with its answer, in the order they were given."""
        chunks = [lines[start : start + CHUNK] for start in range(0, len(lines), CHUNK)]
        for chunk, answers in zip(chunks, self.threads.map(self._batch, chunks)):
            yield from zip(chunk, answers)

    def for_each(self, function, items: Iterable) -> Iterator:
        """Call the function for each item, two at a time; give the results in order."""
        return self.threads.map(function, items)

    def _batch(self, lines: list[dict]) -> list[dict]:
        body = b"\n".join(json.dumps(line, separators=(",", ":")).encode() for line in lines) + b"\n"
        answer = self._accepted("POST", "/v1/batch", body, {"Content-Type": "application/x-ndjson"})
        answers = [json.loads(line) for line in answer.body.splitlines()]
        if len(answers) != len(lines):
            raise Unexpected(f"A batch of {len(lines)} lines got {len(answers)} answers.")
        return answers

    def _accepted(self, method: str, path: str, body: bytes | None, headers: dict) -> Answer:
        answer = self._ask(method, path, body, headers)
        if not 200 <= answer.status < 300:
            raise Unexpected(f"{method} {path} was answered {answer.status}: {answer.body.decode(errors='replace')}")
        return answer

    def _ask(self, method: str, path: str, body: bytes | None, headers: dict) -> Answer:
        # Every command carries an idempotency key, so asking again is safe even when only the answer got lost.
        for attempt in count(1):
            try:
                connection = self._connection()
                connection.request(method, self.url.path.rstrip("/") + path, body, self.headers | headers)
                response = connection.getresponse()
                replayed = response.headers.get("Idempotency-Replayed") == "true"
                answer = Answer(response.status, replayed, response.read())
                wait = response.headers.get("Retry-After")
                if answer.status not in (429, 503) or wait is None or attempt >= ATTEMPTS:
                    return answer
                pause, reason = float(wait), f"{answer.status}, Retry-After: {wait}"
            except (HTTPException, OSError) as error:
                self._connection().close()  # the next request opens it anew
                if attempt >= ATTEMPTS:
                    raise Unexpected(f"{method} {path}: {error!r}, {ATTEMPTS} times.") from error
                pause, reason = 0.25 * attempt, repr(error)
            print(f"\n{method} {path}: {reason}; trying again", file=sys.stderr)
            time.sleep(pause)

    def _connection(self) -> HTTPConnection:
        if not hasattr(self.connections, "open"):
            kind = HTTPSConnection if self.url.scheme == "https" else HTTPConnection
            self.connections.open = kind(self.url.netloc, timeout=120)
        return self.connections.open
