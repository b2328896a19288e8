"""The named points, and what makes a server pass each."""
import os
import re

HERE = os.path.dirname(os.path.abspath(__file__))
TABLE = os.path.join(HERE, "../../../service/core/points.def")

# How often a point is passed at most before the kill; what is not here comes by the dozen.
PASSES = {
    "in_migration": 1, "in_take_over": 1, "after_take_over": 1, "in_scan": 20, "after_scan": 1,
    "before_greeting": 1, "after_checkpoint_read": 6, "after_replayed_event": 6,
    "before_evict": 2, "after_evict": 2, "in_maintain": 1, "after_maintain": 1, "before_stop": 1,
    "after_save": 1, "before_trim": 2, "between_drops": 2, "after_drop": 6,
    "before_delete": 4, "after_delete": 4, "before_create": 4, "after_create": 4,
    "before_record": 4, "after_record": 4, "before_spec": 4, "after_spec": 4,
    "before_receipts": 6, "after_receipts": 6, "after_past": 12, "before_rewind": 3,
    "in_rewind": 1, "after_rewind": 3, "in_fork": 12, "before_fork": 2, "before_import": 2,
    "in_quarantine": 3, "after_quarantine": 3, "in_trim": 8,
    "after_slice": 6, "after_dismiss": 2, "after_snapshot": 2, "after_shard": 6,
}
# What only those pass who use history.
HISTORY = {"after_past", "before_rewind", "in_rewind", "after_rewind", "in_fork", "before_fork",
           "before_import", "in_quarantine", "after_quarantine"}
# What is passed while nobody works, and when it is asked to stop.
QUIET = {"in_maintain", "after_maintain"}
IDLE = {"before_evict", "after_evict"}
TERM = {"before_stop", "after_save"}
REPLAY = {"after_checkpoint_read", "after_replayed_event"}  # events must have been left
FRESH = {"in_migration"}  # in a new folder only
HALF = "half_reply"  # not in the program: the reader does it


def table():
    with open(TABLE, encoding="utf-8") as lines:
        return re.findall(r"^POINT\((\w+),", lines.read(), re.MULTILINE)


def chosen(words):
    """The points to kill at by "all", "none", or a list of "quick" (what needs no waiting), "slow"
    (what does), "history" and "name*3"."""
    names = table() + [HALF]
    if words == "none":
        return []
    if words == "all":
        return names
    groups = {"slow": QUIET | IDLE, "history": HISTORY}
    groups["quick"] = set(names) - groups["slow"] - HISTORY
    out = []
    for word in words.split(","):
        if word in groups:
            out += [name for name in names if name in groups[word]]
            continue
        name, _, times = word.partition("*")
        if name not in names:
            raise SystemExit(f"there is no point {name}")
        out += [name] * int(times or 1)
    return out
