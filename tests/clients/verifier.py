"""A verifier through a rotation, as far as the libraries do not differ. The time of day is the gateway's."""

import base64
import datetime
import json
import time

import requests
from freezegun import freeze_time

from conversation import hear, say

# So long the slower ones among real verifiers keep a key set.
TWENTY_MINUTES = 1200


class Kept:
    """A key set for libraries that fetch none: it is read by `read`, and kept for 20 minutes."""

    def __init__(self, uri, read):
        self.uri, self.read, self.fetched_at, self.document, self.keys = uri, read, None, None, None

    def kids(self):
        """Those that are known without fetching; None when it is time to fetch."""
        if self.fetched_at is None or time.time() >= self.fetched_at + TWENTY_MINUTES:
            return None
        return [key["kid"] for key in json.loads(self.document)["keys"]]

    def get(self):
        if self.kids() is None:
            response = requests.get(self.uri)
            response.raise_for_status()
            self.document, self.fetched_at = response.text, time.time()
            self.keys = self.read(self.document)
        return self.keys


def kid_of(token):
    header = token.split(".")[0]
    return json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))["kid"]


def play(prepare, refusal):
    """`prepare(test)` makes two functions: one for the kids that are known without fetching, and one that verifies a token
    or raises `refusal`."""
    kids, verify = prepare(hear())
    with freeze_time() as clock:
        while (step := hear()) is not None:
            clock.move_to(datetime.datetime.fromtimestamp(step["now"], datetime.timezone.utc))
            known = kids()
            for token in step["good"]:
                # Some fetch for an unknown kid, and would hide that the key was published too late.
                assert known is None or kid_of(token) in known, "a kid that was not published in time"
                verify(token)
            for token in step["bad"]:
                try:
                    verify(token)
                except refusal:
                    continue
                raise AssertionError(f"accepted: {token}")
            say({"kept": known is not None})
