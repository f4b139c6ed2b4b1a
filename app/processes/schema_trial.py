"""Whether the JSON schema on standard input can be compiled: started by the engine's core alone.

Exit status 0: it can; 1: it cannot, and standard output says why; anything else: it would take too much.
"""

import sys

from app.implementations.serving.grammars import try_out


def main() -> int:
    fault = try_out(sys.stdin.read())
    print(fault or "")
    return 0 if fault is None else 1


if __name__ == "__main__":
    sys.exit(main())
