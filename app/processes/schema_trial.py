"""Whether the JSON schema on standard input can be compiled: started by the engine's core alone.

Exit status 0: it can; 3: it cannot, and standard output says why; 1: this program is at fault; anything else, or
a signal: it would take too much.
"""

import sys

from app.implementations.serving.grammars import try_out

REFUSED, TOO_MUCH = 3, 4


def main() -> int:
    schema = sys.stdin.read()
    try:
        fault = try_out(schema)
    except MemoryError:
        return TOO_MUCH
    print(fault or "")
    return 0 if fault is None else REFUSED


if __name__ == "__main__":
    sys.exit(main())
