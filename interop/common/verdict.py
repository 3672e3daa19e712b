"""Turns a test runner's own report into the lines `interop/run` reads.

    verdict.py FORMAT REPORT [KNOWN_FAILURES]

FORMAT is junit (pytest, ctest), mocha and jest (their JSON), go (`go test -json`) or libtest (cargo test).
KNOWN_FAILURES names cases, one a line, that RabbitMQ fails too: they are skipped when they fail. `#` begins a comment.
"""

import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def main():
    form, report, *known_failures = sys.argv[1:]
    known = read_known(known_failures[0]) if known_failures else set()
    cases = list(READERS[form](Path(report)))
    for verdict, name, reason in cases:
        if verdict == "FAIL" and name in known:
            verdict, reason = "skip", "fails on RabbitMQ too"
        print(f"{verdict} {name}" if verdict == "ok" else f"{verdict} {name}: {one_line(reason)}")
    unmet = known - {name for _, name, _ in cases}
    for name in sorted(unmet):
        print(f"FAIL {name}: a known failure that no case has the name of")


def read_known(path):
    lines = (line.split("#")[0].strip() for line in Path(path).read_text().splitlines())
    return {line for line in lines if line}


def one_line(text):
    return " ".join(text.split())[:300]


def read_junit(path):
    for case in ElementTree.parse(path).iter("testcase"):
        name = ".".join(filter(None, [case.get("classname"), case.get("name")]))
        for kind, verdict in [("failure", "FAIL"), ("error", "FAIL"), ("skipped", "skip")]:
            found = case.find(kind)
            if found is not None:
                yield verdict, name, found.get("message") or found.text or kind
                break
        else:
            yield "ok", name, ""


def read_mocha(path):
    # Tests print to the same stream before the report.
    text = path.read_text()
    report = json.loads(text[text.rindex('\n{\n  "stats"'):] if not text.startswith("{") else text)
    for case in report["passes"]:
        yield "ok", case["fullTitle"], ""
    for case in report["pending"]:
        yield "skip", case["fullTitle"], "pending"
    for case in report["failures"]:
        yield "FAIL", case["fullTitle"], case["err"].get("message", "failed")


def read_jest(path):
    for file in json.loads(path.read_text())["testResults"]:
        for case in file["assertionResults"]:
            verdict = {"passed": "ok", "failed": "FAIL"}.get(case["status"], "skip")
            yield verdict, case["fullName"], " ".join(case["failureMessages"]) or case["status"]
        if not file["assertionResults"]:
            yield "FAIL", Path(file["name"]).name, file["message"]


def read_go(path):
    output = {}
    for line in path.read_text().splitlines():
        event = json.loads(line)
        name = event.get("Test")
        if event["Action"] == "output":
            output.setdefault(name, []).append(event["Output"])
        elif event["Action"] in ("pass", "fail", "skip"):
            verdict = {"pass": "ok", "fail": "FAIL", "skip": "skip"}[event["Action"]]
            if name:
                yield verdict, name, " ".join(output.get(name, []))
            elif verdict == "FAIL":
                # A panic or a failed build ends the package without naming a test.
                yield verdict, event["Package"], " ".join(output.get(None, [])[-5:])


def read_libtest(path):
    file = ""
    for line in path.read_text().splitlines():
        if match := re.match(r" +Running (?:unittests )?(\S+)\.rs ", line):
            file = match[1]
        elif match := re.match(r"test (.+) \.\.\. .*\b(ok|FAILED|ignored)$", line):
            verdict = {"ok": "ok", "FAILED": "FAIL", "ignored": "skip"}[match[2]]
            yield verdict, f"{file}: {match[1]}", match[2]
        elif line.startswith("error: could not compile"):
            yield "FAIL", file or "build", line


READERS = {"junit": read_junit, "mocha": read_mocha, "jest": read_jest, "go": read_go, "libtest": read_libtest}

if __name__ == "__main__":
    main()
