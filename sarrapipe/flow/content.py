"""What tasks of regular files have in common, wherever they go: comparison with what was announced."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sarrapipe.config.model import FlowConfig
from sarrapipe.errors import IdentityMismatch
from sarrapipe.flow.movements import Movement
from sarrapipe.flow.task import Task
from sarrapipe.ledger.admission import Admission, Announcement
from sarrapipe.message import identity
from sarrapipe.message.worklist import WorkItem
from sarrapipe.shm.slots import Counter

if TYPE_CHECKING:
    from sarrapipe.flow.download import Downloads

__all__ = ["ContentTask", "expected_method"]


class ContentTask(Task):
    """The bytes of one regular file under way.

    Args:
        item: The item that began it.
        announcement: What the ledger was told.
        admission: What the ledger answered.
        downloads: Fetches and sends ranges for it.
    """

    __slots__ = ("config", "downloads")

    def __init__(
        self, item: WorkItem, announcement: Announcement, admission: Admission, downloads: Downloads
    ) -> None:
        super().__init__(item, announcement, admission)
        self.downloads = downloads
        self.config: FlowConfig = downloads.config

    @property
    def nonce(self) -> str:
        """What names the inflight file."""
        return self.claim.nonce.hex()

    @property
    def size_is_binding(self) -> bool:
        """Whether exactly the announced number of bytes has to come."""
        config = self.config
        relaxed = config.accept_size_wrong or config.recompute_checksum or config.validation == "none"
        return not relaxed

    def _final_mode(self) -> int | None:
        if self.config.perm_copy and self.item.message.mode is not None:
            return self.item.message.mode
        return self.config.perm_default or None

    def movement(self) -> Movement | None:
        """Return how far its bytes are; None where somebody else tells."""
        return None

    @abstractmethod
    def tokens(self) -> Sequence[object]:
        """Return the tokens of its transfers."""

    @abstractmethod
    def wants(self, token: object) -> bool:
        """Return whether a read with this token belongs to it."""

    def check_size(self, size: int) -> None:
        """Compare the size that arrived with the one announced.

        Raises:
            IdentityMismatch: They differ, and nothing allows that.
        """
        announced = self.item.message.size
        if announced is None or announced == size:
            return
        if self.size_is_binding:
            raise IdentityMismatch(
                f"{self.item.message.rel_path}: {size} bytes came, {announced} were announced"
            )
        self.item.message = self.item.message.replace(size=size)

    def check_identity(self, value: str | None) -> None:
        """Compare the digest that was computed with the one announced, and publish what is true (R104-R107).

        Args:
            value: The digest of all bytes by `expected_method`; None if none was computed.

        Raises:
            IdentityMismatch: They differ.
        """
        slot = self.downloads.slot
        announced = self.item.message.identity
        if value is None or announced is None:
            slot.add(Counter.FILES_UNVERIFIED)
            return
        if announced.method == "cod":
            computed = {"method": announced.value, "value": value}
            self.item.message = self.item.message.replace(identity=computed)
            slot.add(Counter.FILES_UNVERIFIED)
            return
        if value == announced.value:
            slot.add(Counter.FILES_VERIFIED)
            slot.add(Counter.BYTES_VERIFIED, self.item.message.size or 0)
            return
        if not self.config.recompute_checksum:
            message = self.item.message
            raise IdentityMismatch(
                f"{message.rel_path}: {announced.method} is {value}, announced was {announced.value}"
            )
        slot.add(Counter.FILES_UNVERIFIED)
        computed = {"method": announced.method, "value": value}
        self.item.message = self.item.message.replace(identity=computed)


def expected_method(item: WorkItem, config: FlowConfig) -> str | None:
    """Return the digest to compute over an item's bytes; None if there is nothing to compare with.

    Raises:
        MessageError: A method that nobody knows (R104).
    """
    announced = item.message.identity
    if announced is None:
        return None
    if announced.method == "cod" and config.validation != "none":
        return announced.value  # there is nothing to compare it with: it is what will be announced
    if config.validation != "full":
        return None
    method = announced.method
    if method in identity.DIGEST_BYTES:
        return method
    identity.hasher(method)  # raises for what is no method at all
    return None
