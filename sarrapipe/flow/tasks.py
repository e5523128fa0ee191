"""Which task an admitted item asks for."""

from __future__ import annotations

from sarrapipe.config.model import FlowConfig
from sarrapipe.config.values import Fetching
from sarrapipe.errors import MessageError
from sarrapipe.flow.blockfile import BlockFile
from sarrapipe.flow.download import IN_ONE_PIECE, Downloads
from sarrapipe.flow.entries import DirectoryTask, HardLinkTask, LinkTask
from sarrapipe.flow.farnames import FarDirectory, FarLink, FarRemoval
from sarrapipe.flow.places import Places
from sarrapipe.flow.relaytask import RelayTask
from sarrapipe.flow.removals import LocalRemoval, RemovalTask
from sarrapipe.flow.sends import Sends
from sarrapipe.flow.sendtask import SendTask
from sarrapipe.flow.task import Task, announce
from sarrapipe.ledger.admission import Admission, Announcement
from sarrapipe.message.worklist import WorkItem

__all__ = ["Tasks"]


class Tasks:
    """Makes the tasks of one flow.

    Args:
        config: The flow's configuration.
        places: Where it may write.
        downloads: Fetches files.
    """

    def __init__(self, config: FlowConfig, places: Places, downloads: Downloads) -> None:
        self._config = config
        self._places = places
        self._downloads = downloads

    def segment_bytes(self, item: WorkItem) -> int:
        """Return the size of the segments an item's file moves in; 0 for one piece."""
        return 0 if "fileOp" in item.message else self._downloads.segment_bytes(item)

    def recut(self, item: WorkItem, announcement: Announcement, admission: Admission) -> Announcement:
        """Return an announcement with the segments that the row has which was taken over.

        They were chosen by what its first owner had measured of the source; what is written of them counts.
        Another cut by the configuration is no reason to keep the old one.
        """
        row_has = admission.segment_size
        if self._config.segment_size or not row_has or not announcement.segment_size:
            return announcement
        if announcement.total_segments:
            return announcement  # blocks are as they were announced
        return announce(item, self._config, row_has)

    def removal(self, item: WorkItem) -> RemovalTask:
        """Return the task of an item that removes or renames a name.

        Raises:
            MessageError: The message lacks what the ledger has to know.
        """
        sends = self._downloads.sends
        if sends is None:
            return LocalRemoval(item, self._config, self._places)
        return FarRemoval(item, self._config, sends)

    def make(self, item: WorkItem, announcement: Announcement, admission: Admission) -> Task:
        """Return the task for an item.

        Raises:
            MessageError: The message says neither what to make nor what to fetch.
            UnsafePath: Its target is in no directory of this flow.
        """
        sends = self._downloads.sends
        if sends is not None:
            return self._make_far(item, announcement, admission, sends)
        operation = item.message.file_op if "fileOp" in item.message else None
        if operation is not None:
            if operation.link is not None:
                return LinkTask(item, announcement, admission, self._config, self._places)
            if operation.hlink is not None:
                return HardLinkTask(item, announcement, admission, self._config, self._places)
            if operation.directory:
                return DirectoryTask(item, announcement, admission, self._config, self._places)
            if item.message.size is None and item.message.identity is None:
                raise MessageError(
                    f"{item.message.rel_path}: renamed, but its old name is not here to be renamed"
                )
        if "blocks" in item.message.fields and not announcement.total_segments:
            return self._downloads.take(BlockFile(item, announcement, admission, self._downloads))
        return self._downloads.make(item, announcement, admission)

    def _make_far(
        self, item: WorkItem, announcement: Announcement, admission: Admission, sends: Sends
    ) -> Task:
        """Return the task for an item that goes to a server. Another name for a file is sent as a file."""
        operation = item.message.file_op if "fileOp" in item.message else None
        if operation is not None and operation.link is not None:
            return FarLink(item, announcement, admission, self._config, sends)
        if operation is not None and operation.directory:
            return FarDirectory(item, announcement, admission, self._config, sends)
        downloads = self._downloads
        if self._config.download is Fetching.STREAM and downloads.staged is not None:
            return downloads.take(
                RelayTask(
                    item,
                    announcement,
                    admission,
                    downloads,
                    sends,
                    downloads.staged,
                    in_one_piece=bool(item.local and item.local.get(IN_ONE_PIECE)),
                )
            )
        return downloads.take(SendTask(item, announcement, admission, downloads, sends))
