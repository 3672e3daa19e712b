"""Writes the results of a run into the README, between the markers of its broker."""

import re
from pathlib import Path

# Rows of the first table, in this order; a client's other checks are only counted.
FEATURES = [
    "work queue", "publish/subscribe", "routing", "topics", "RPC", "publisher confirms", "mandatory return",
    "dead letters and TTL", "priority", "headers exchange", "get", "nack and requeue", "unsettled messages return",
    "exclusive and auto-delete", "properties and bodies", "errors", "transactions", "length limits",
    "bound and alternate exchanges", "consumer cancelled by broker", "quorum queue", "stream", "heartbeats",
    "restart", "recovery",
]
MARKS = {"ok": "✓", "FAIL": "✗", "skip": "–"}


def write_tables(readme: Path, broker: str, results: dict):
    text = readme.read_text()
    begin, end = f"<!-- results: {broker} -->", f"<!-- end: {broker} -->"
    if begin not in text or end not in text:
        raise SystemExit(f"{readme.name} has no markers for {broker}")
    head, rest = text.split(begin, 1)
    tail = rest.split(end, 1)[1]
    readme.write_text("\n".join([head + begin, "", *feature_rows(results), "", *count_rows(results), "", end + tail]))


def feature_rows(results):
    verdicts = {name: by_feature(found) for name, found in results.items()}
    clients = [name for name, found in verdicts.items() if found]
    yield "| | " + " | ".join(clients) + " |"
    yield "|---" * (len(clients) + 1) + "|"
    for feature in FEATURES:
        cells = [MARKS.get(verdicts[client].get(feature), "") for client in clients]
        if any(cells):
            yield f"| {feature} | " + " | ".join(cells) + " |"


def by_feature(results):
    """The worst verdict of each feature: some are checked once for each version of a protocol."""
    verdicts = {}
    for verdict, text in results:
        feature = re.sub(r" \(.*\)$", "", text.split(": ")[0])
        if feature in FEATURES:
            verdicts[feature] = max(verdict, verdicts.get(feature, verdict), key=["ok", "skip", "FAIL"].index)
    return verdicts


def count_rows(results):
    yield "| Folder | passed | failed | skipped |"
    yield "|---|---:|---:|---:|"
    for name, found in results.items():
        counts = [sum(1 for verdict, _ in found if verdict == wanted) for wanted in MARKS]
        yield f"| {name} | " + " | ".join(map(str, counts)) + " |"
