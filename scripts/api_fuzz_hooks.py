"""Lets schemathesis send what travels as lines: one JSON value of the schema makes a file of one line."""

import json

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def one_line(_context, value):
    return json.dumps(value).encode()
