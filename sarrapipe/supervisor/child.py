"""From a fresh process to an instance at work: everything between the fork and `main(context)`.

The order matters. Nothing is done before the parent has said GO: until then nobody may know this process,
so it ends by itself when the channel ends. From GO on the kernel ends it with its parent.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import signal
import socket
import sys
import traceback
from dataclasses import asdict, dataclass
from typing import Final, NoReturn

from sarrapipe import log
from sarrapipe.clock import SYSTEM_CLOCK
from sarrapipe.errors import ConfigError, SarrapipeError
from sarrapipe.shm.arena import Arena
from sarrapipe.supervisor import linux
from sarrapipe.supervisor.context import InstanceContext
from sarrapipe.supervisor.mailbox import Frame, Mailbox, receive_frame
from sarrapipe.supervisor.plan import FlowRequest, resolve
from sarrapipe.supervisor.states import EX_CONFIG, EX_UNASKED

__all__ = ["EX_SOFTWARE", "Job", "call_entry", "redirect_output", "run", "run_after_exec"]

_LOG = log.get_logger(__name__)
EX_SOFTWARE: Final = 70  # sysexits.h: an internal error


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a new process is told about the instance it will be.

    Attributes:
        number: Instance number from 1.
        wanted: How many there are to be, for the title.
        incarnation: Of this start.
        slot: Index in the arena.
        arena: Path.
        state_dir: Of the flow.
        cpus: To bind to; empty for none.
        log_level: Of the instance's log.
        log_path: File, or "" for standard error.
        parent_pid: Whose end is this instance's end.
    """

    number: int
    wanted: int
    incarnation: int
    slot: int
    arena: str
    state_dir: str
    cpus: tuple[int, ...]
    log_level: str
    log_path: str
    parent_pid: int
    log_mode: int = 0o600

    def to_wire(self) -> dict[str, object]:
        """Return this as msgpack can carry it."""
        return asdict(self)

    @classmethod
    def from_wire(cls, data: dict[str, object]) -> Job:
        """Return what `to_wire` was called on."""
        cpus = data.pop("cpus")
        assert isinstance(cpus, list)
        return cls(cpus=tuple(cpus), **data)  # type: ignore[arg-type]  # our own parent wrote it


def run(request: FlowRequest, job: Job, channel: socket.socket, config: object) -> NoReturn:
    """Become an instance, do its work, and end this process with its status.

    Args:
        request: The flow.
        job: The instance.
        channel: To the parent.
        config: What the loader returned.
    """
    try:
        status = _run(request, job, channel, config)
    except BaseException:  # noqa: BLE001 - top of a process: whatever it is, it goes to the log and ends it
        traceback.print_exc()
        status = EX_SOFTWARE
    with contextlib.suppress(OSError, ValueError):
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)  # what the fork server registered with atexit is not ours to run


def run_after_exec(channel_fd: int, job_fd: int, lock_fd: int) -> NoReturn:
    """Become an instance in a fresh interpreter, where the system allows no fork server.

    Args:
        channel_fd: Our end of the channel.
        job_fd: A pipe that holds one frame: the request and the job.
        lock_fd: The parent's lock, held as long as we live; -1 for none.
    """
    from sarrapipe.supervisor.wire import Reader

    for fd in (channel_fd, lock_fd):
        if fd >= 0:
            os.set_inheritable(fd, False)  # noqa: FBT003 - the library's signature
    with os.fdopen(job_fd, "rb") as pipe:
        (value,) = Reader().feed(pipe.read())
    assert isinstance(value, dict)
    request, job = FlowRequest.from_wire(value["request"]), Job.from_wire(value["job"])
    channel = socket.socket(fileno=channel_fd)
    try:
        loaded = resolve(request.loader)(request)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        os._exit(error.code)
    assert isinstance(loaded, tuple)
    run(request, job, channel, loaded[1])


def call_entry(entry: str, context: InstanceContext) -> int:
    """Call the instance's function; turn errors into its exit status, with one line in the log.

    Returns:
        The exit status.
    """
    try:
        status = resolve(entry)(context)
    except ConfigError as error:
        _LOG.critical("%s", error)  # every problem has its own file:line:column
        context.slot.set_note(str(error).partition("\n")[0])
        return error.code
    except SarrapipeError as error:
        # What a person has to mend needs no traceback: a queue that exists with other properties, say.
        ours = error.code != EX_CONFIG
        _LOG.critical("instance %s/%d ends: %s", context.flow, context.instance, error, exc_info=ours)
        context.slot.set_note(str(error).partition("\n")[0])
        return error.code if 0 < error.code < 128 else EX_SOFTWARE
    except Exception:  # noqa: BLE001 - top of a process
        _LOG.critical("instance %s/%d ends: internal error", context.flow, context.instance, exc_info=True)
        return EX_SOFTWARE
    assert isinstance(status, int)
    return status


def redirect_output(path: str, mode: int = 0o600) -> None:
    """Send standard output and error to a file, for what is printed past the log: stacks, tracebacks.

    Args:
        path: The log, made if it is not there.
        mode: Permission bits it gets, whatever the umask (option `permLog`).
    """
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, mode)
    with contextlib.suppress(PermissionError):  # somebody else's: it can be written, so let it be
        os.fchmod(fd, mode)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)


def _run(request: FlowRequest, job: Job, channel: socket.socket, config: object) -> int:
    if receive_frame(channel) != Frame.GO or not linux.die_with_parent(job.parent_pid):
        return 0  # nobody knows us
    for number in (signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    mailbox = Mailbox(channel, lambda: _reopen(job))
    mailbox.open()
    _set_up_process(request, job)
    arena = Arena.open(job.arena)
    context = InstanceContext(
        component=request.component,
        name=request.name,
        instance=job.number,
        incarnation=job.incarnation,
        config_home=request.config_home,
        state_dir=job.state_dir,
        overrides=request.overrides,
        config=config,
        slot=arena.slot(job.slot),
        arena=arena,
        mailbox=mailbox,
        channel=channel,
        clock=SYSTEM_CLOCK,
    )
    status = call_entry(request.entry, context)
    mailbox.read()
    if status == 0 and mailbox.stopping and not mailbox.asked:
        return EX_UNASKED  # an out-of-memory daemon, or a person: the parent starts another one
    return status


def _set_up_process(request: FlowRequest, job: Job) -> None:
    """Title, CPUs, log, and what is left behind when it dies: stacks but no memory."""
    set_title(f"{request.flow} {job.number:02d}/{job.wanted:02d}")
    if job.cpus and not linux.set_affinity(frozenset(job.cpus)):
        sys.stderr.write(f"cannot bind to CPUs {job.cpus}: instance {job.number} runs where it may\n")
    if job.log_path:
        redirect_output(job.log_path, job.log_mode)
    log.configure(job.log_level, job.log_path or None, batched=True)
    faulthandler.enable(file=2)  # also on SIGABRT, with which the parent ends an instance that hangs
    linux.limit_core_files()


def _reopen(job: Job) -> None:
    if job.log_path:
        redirect_output(job.log_path, job.log_mode)
    log.reopen()


def set_title(what: str) -> None:
    """Show `sarrapipe: what` in process listings, where the library for it is there."""
    try:
        from setproctitle import setproctitle
    except ImportError:
        return
    setproctitle(f"sarrapipe: {what}")
