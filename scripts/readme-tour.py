#!/usr/bin/env python3
"""Takes the README's tour against a fresh server and compares every answer with the one shown.

    SCRIP_BIN=target/debug/scrip scripts/readme-tour.py           # fails when the README tells something else
    SCRIP_BIN=target/debug/scrip scripts/readme-tour.py --write   # writes the answers of this run into the README

An answer is compared whole, field by field and in order, except for what no two runs share: ids, times, request ids.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
README = os.path.join(ROOT, "README.md")
WIDTH = 116
VARIES = [
    (re.compile(r"\b(tpl|cpn|ptx|lot|hold|ord|evt)_[0-9a-f]{32}\b"), r"\1_..."),
    (re.compile(r"\b\d{4}-\d\d-\d\dT[\d:.]+Z"), "TIME"),
    (re.compile(r'("request_id":")[0-9a-f]{32}'), r"\1..."),
]


def paragraphs(text):
    """The indented paragraphs of the tour, each with where it begins and ends in the text."""
    begin = text.index("## Five minutes with curl")
    end = text.index("## Where to read on")
    for found in re.finditer(r"(?:^    .*\n)+", text[begin:end], re.MULTILINE):
        yield begin + found.start(), begin + found.end(), re.sub(r"^    ", "", found.group(), flags=re.MULTILINE)


def steps(text):
    """Commands, and the place of the answer shown to the last of them, if one is."""
    found = []
    for start, end, paragraph in paragraphs(text):
        if paragraph.startswith("{"):
            found[-1] = (found[-1][0], (start, end, paragraph))
        else:
            found.append((paragraph, None))
    return found


def masked(answer):
    text = json.dumps(answer, separators=(",", ":"))
    for pattern, stand_in in VARIES:
        text = pattern.sub(stand_in, text)
    return text


def wrapped(answer):
    lines = [""]
    for part in re.split(r'(?<=,)(?=["{])', json.dumps(answer, separators=(",", ":"), ensure_ascii=False)):
        if len(lines[-1]) + len(part) > WIDTH and lines[-1]:
            lines.append(" ")
        lines[-1] += part
    return "".join(f"    {line}\n" for line in lines)


def serve(binary, folder):
    """A server on a free port with a demo tenant; its address, when it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    log = open(os.path.join(folder, "log"), "w")
    server = subprocess.Popen(
        [binary, "serve", "--demo", "--listen", address], cwd=folder, stdout=log, stderr=subprocess.STDOUT
    )
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"http://{address}/readyz"):
                return server, address
        except OSError:
            if server.poll() is not None:
                break
            time.sleep(0.1)
    server.kill()
    sys.exit("The server did not start:\n" + open(log.name).read())


def take(text, binary):
    """Each step with the answer to its last command."""
    folder = tempfile.mkdtemp()
    server, address = serve(binary, folder)
    try:
        mark = "=== next step ==="
        script = "set -eu\n" + f"\necho\necho '{mark}'\n".join(commands for commands, _ in steps(text))
        script = script.replace("127.0.0.1:8080", address)
        run = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=60)
        if run.returncode != 0:
            sys.exit(f"A command of the tour failed:\n{run.stdout}\n{run.stderr}")
        answers = [[line for line in step.splitlines() if line] for step in run.stdout.split(mark)]
        server.terminate()
        if server.wait(30) != 0:
            sys.exit("The server did not stop well.")
        subprocess.run([binary, "verify"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        return list(zip(steps(text), answers, strict=True))
    finally:
        server.kill()
        shutil.rmtree(folder)


def main():
    text = open(README, encoding="utf-8").read()
    binary = os.path.abspath(os.environ.get("SCRIP_BIN", os.path.join(ROOT, "target/debug/scrip")))
    compared = [(commands, shown, json.loads(answers[-1])) for (commands, shown), answers in take(text, binary) if shown]
    if "--write" in sys.argv:
        for _, (start, end, _), answer in reversed(compared):
            text = text[:start] + wrapped(answer) + text[end:]
        open(README, "w", encoding="utf-8").write(text)
        return
    is_true = True
    for commands, (_, _, told), answer in compared:
        told = masked(json.loads("".join(line.strip() for line in told.splitlines())))
        if told != masked(answer):
            is_true = False
            print(f"README.md shows another answer to\n\n{commands}\nshown:  {told}\nanswer: {masked(answer)}\n")
    if not is_true:
        sys.exit("`scripts/readme-tour.py --write` writes the answers anew.")
    print(f"README.md: all {len(compared)} answers of the tour are what the server says; its books are right.")


main()
