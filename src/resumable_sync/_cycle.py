"""Noticing a source that goes round in circles."""

from resumable_sync._errors import CursorError

__all__ = ["CycleWatch"]


class CycleWatch:
    """Notices that reading came back to a place where it was before, in constant memory.

    Each place is compared with one remembered place, which is replaced after 1, 2, 4, 8, ... steps.

    Args:
        text: The place where reading begins, as `encode_cursor` writes it.
        source: What gives the places, for the message: `"Orders.fetch"`.
        what: What a place is there, for the message: `"token"`.

    References:
        R. P. Brent, "An improved Monte Carlo factorization algorithm", BIT 20 (1980).
    """

    def __init__(self, text: str, source: str, what: str) -> None:
        self._remembered = text
        self._source = source
        self._what = what
        self._steps, self._limit = 0, 1

    def step(self, text: str) -> None:
        """Take the next place.

        Raises:
            CursorError: If it is one that was passed before; in a cycle, after at most a few rounds.
        """
        if text == self._remembered:
            msg = (
                f"{self._source} gave a {self._what} that was passed before; reading on would never end. Let the "
                f"connector go on after the {self._what} it is given, and let every {self._what} be unique"
            )
            raise CursorError(msg)
        self._steps += 1
        if self._steps == self._limit:
            self._remembered, self._steps, self._limit = text, 0, self._limit * 2
