"""One attempt at a job: from the arguments of a call, over lease, pages and checkpoints, to its end."""
