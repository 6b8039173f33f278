"""Run a pipeline of commands and print what it took, as JSON: seconds, seconds of CPU, and megabytes.

    python -I -S benchmarks/_measure.py '[["tap", "--config"], ["target"]]'

It is a process of its own, and a small one, since the most memory that a process had is never less than what the
process had that started it. Memory and CPU are those of the commands and of what they started, without any server; the
memory is that of the largest process of each command, added up.
"""

import json
import os
import sys
import time


def main() -> int:
    """Run them; give the exit status."""
    commands: list[list[str]] = json.loads(sys.argv[1])
    begun = time.perf_counter()
    children, read = [], 0
    for place, command in enumerate(commands):
        last = place == len(commands) - 1
        following, write = (0, 1) if last else os.pipe()
        actions = [(os.POSIX_SPAWN_DUP2, read, 0), (os.POSIX_SPAWN_DUP2, write, 1)]
        children.append(os.posix_spawn(command[0], command, os.environ, file_actions=actions))
        # Only the children hold the pipe, so that the one ends with the other.
        for descriptor in (read, write):
            if descriptor > 1:
                os.close(descriptor)
        read = following
    waited = [os.wait4(child, 0) for child in children]
    seconds = time.perf_counter() - begun
    failed = [status for _, status, _ in waited if status]
    usages = [usage for _, _, usage in waited]
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    print(json.dumps({"seconds": seconds, "cpu": cpu, "megabytes": sum(usage.ru_maxrss for usage in usages) / 1024}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
