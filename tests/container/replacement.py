"""State that must survive the replacement of a container: `before FILE` makes it and writes down
what is to come, `after FILE` holds the server at $DESCENT_URL against that."""

import json
import os
import pathlib
import random
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "clients" / "python"))

import descent  # noqa: E402

SEED = 11
STEPS = 5
SIZE = 1031


def gradients():
    draw = random.Random(SEED)
    return [{"w": [draw.gauss(0, 1) for _ in range(SIZE)]} for _ in range(STEPS + 1)]


def step(session, index):
    """One step, known by its key however often it is sent."""
    return session.step(gradients()[index], key="step %d" % index)


def numbers(session):
    """The weights as numbers in JSON, which gives the same bits back."""
    found = session.parameters()["w"]
    return found.tolist() if hasattr(found, "tolist") else list(found)


def before(client):
    """Two sessions alike; one of them, the reference, takes its last step before the
    replacement."""
    start = {"w": [0.5] * SIZE}
    session, reference = (client.create(start, {"name": "adam", "lr": 0.01}) for _ in range(2))
    for index in range(STEPS):
        step(session, index)
        step(reference, index)
    expected = {"id": session.id, "now": numbers(session)}
    step(reference, STEPS)
    expected["next"] = numbers(reference)
    return expected


def after(client, expected):
    session = client.session(expected["id"])
    assert session.info()["step"] == STEPS, session.info()
    assert numbers(session) == expected["now"], "the weights are not those of before"
    assert step(session, STEPS - 1).replayed, "a repeated step was applied again"
    assert not step(session, STEPS).replayed, "a new step was taken for an old one"
    assert numbers(session) == expected["next"], "the optimizer's state is not that of before"


def main(command, path):
    with descent.Client(os.environ["DESCENT_URL"]) as client:
        if command == "before":
            with open(path, "w", encoding="utf-8") as file:
                json.dump(before(client), file)
        else:
            with open(path, encoding="utf-8") as file:
                after(client, json.load(file))
    print("  %s: as it should be (seed %d)" % (command, SEED))


if __name__ == "__main__":
    main(*sys.argv[1:])
