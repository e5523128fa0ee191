"""Messages published and not yet confirmed. Pure; the tags are those of publisher confirms.

After `confirm.select` the broker numbers what is published on the channel 1, 2, 3 ... and answers with
basic.ack or basic.nack, for one number or for all up to it (`multiple`).

>>> window = ConfirmWindow()
>>> [window.add(token) for token in "abc"]
[1, 2, 3]
>>> window.settle(2, multiple=True), len(window)
(['a', 'b'], 1)

Source: https://www.rabbitmq.com/docs/confirms#publisher-confirms.
"""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["ConfirmWindow"]

T = TypeVar("T")


class ConfirmWindow(Generic[T]):
    """Tokens of the messages outstanding on one channel, in the order of publishing."""

    __slots__ = ("_lowest", "_next", "_tokens")

    def __init__(self) -> None:
        self._tokens: dict[int, T] = {}
        self._lowest = 1
        self._next = 1

    def __len__(self) -> int:
        """How many messages are outstanding."""
        return len(self._tokens)

    def add(self, token: T) -> int:
        """Record one more published message and return its number."""
        number = self._next
        self._next = number + 1
        self._tokens[number] = token
        return number

    def settle(self, number: int, *, multiple: bool) -> list[T]:
        """Take out and return what one basic.ack or basic.nack speaks of, in the order of publishing.

        Args:
            number: The tag in the frame; 0 with `multiple` means everything (AMQP 0-9-1, basic.ack).
            multiple: Everything outstanding up to `number`.
        """
        tokens = self._tokens
        if not multiple:
            return [tokens.pop(number)] if number in tokens else []
        last = min(number, self._next - 1) if number else self._next - 1
        settled = [tokens.pop(each) for each in range(self._lowest, last + 1) if each in tokens]
        self._lowest = max(self._lowest, last + 1)
        return settled

    def numbered(self) -> list[tuple[int, T]]:
        """Return what is outstanding with its numbers, in the order of publishing, without taking it out."""
        return list(self._tokens.items())

    def fail_all(self) -> list[T]:
        """Take out and return everything: the channel is gone, nobody will confirm."""
        tokens = list(self._tokens.values())
        self._tokens.clear()
        self._lowest = self._next
        return tokens
