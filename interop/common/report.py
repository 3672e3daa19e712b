"""Prints results as `interop/run` reads them."""

import sys
import traceback


class Report:
    def __init__(self):
        self.passed = 0
        self.failed = 0

    def ok(self, name):
        self.passed += 1
        print(f"ok {name}", flush=True)

    def fail(self, name, reason):
        self.failed += 1
        reason = " ".join(str(reason).split())
        print(f"FAIL {name}: {reason}", flush=True)

    def skip(self, name, reason):
        print(f"skip {name}: {reason}", flush=True)

    def check(self, name, holds, reason):
        if holds:
            self.ok(name)
        else:
            self.fail(name, reason)

    def run(self, name, scenario, *arguments):
        """The scenario passes if it raises nothing."""
        try:
            scenario(*arguments)
        except Exception as failure:
            traceback.print_exc(file=sys.stdout)
            self.fail(name, repr(failure))
        else:
            self.ok(name)

    def finish(self):
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        sys.exit(1 if self.failed else 0)
