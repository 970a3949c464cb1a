"""What a script and its test say to each other: one line of JSON at a time."""

import contextlib
import json
import sys


def hear():
    """What the test says next; None when it has nothing more to say."""
    line = sys.stdin.readline()
    return json.loads(line) if line else None


def say(something):
    """Tells the test something."""
    print(json.dumps(something), flush=True)


@contextlib.contextmanager
def operation(name):
    """One operation, whose name is that of its column in README.md; tells the test that it passed."""
    try:
        yield
    except Exception as error:
        raise AssertionError(name) from error
    say({"passed": name})


@contextlib.contextmanager
def refused(kind):
    """What must be refused with an exception of this kind, which is found in what this yields."""
    caught = []
    try:
        yield caught
    except kind as error:
        caught.append(error)
    assert caught, f"nothing was refused with {kind}"
