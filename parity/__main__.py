"""The proofs that the twins agree: python -m parity COMMAND.

No command imports a framework: those live in worker processes. Exit status 0: pass, 1: fail, 2: a mistake.
"""
import sys

from jittwin.cli import Program

PARITY = Program("parity", "python -m parity", "The proofs that the twins agree. Exit status 0: pass, 1: fail, 2: a "
                 "mistake.", {
    "check": ("parity.commands.check:command", "compare the twins, model by model and level by level"),
    "attest": ("parity.commands.attest:command", "what both sides compute with, and whether it can be trusted"),
    "explain": ("parity.commands.explain:command", "which known difference between the frameworks explains a failure"),
    "mutate": ("parity.commands.mutate:command", "put faults into the Jittor twin and see which of them are noticed"),
    "report": ("parity.commands.report:command", "render a JSON report as HTML, Markdown or JUnit"),
})
main = PARITY.main

if __name__ == "__main__":
    sys.exit(main())
