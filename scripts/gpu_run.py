"""Commands with limits. Each runs in a session of its own, and all processes of the session end with it."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time

LIMIT = 60
# For a debugger to tell what a command waits in; the first time it has to be read from the disk.
LOOK_SECONDS = 6
FIRST_LOOK_SECONDS = 15
# The folders of a pack that its executables lie in: the debugger attaches to no other program.
FOLDERS = ("dev", "time")


class Failure(Exception):
    """A command that failed: a short reason, and all that it wrote."""

    def __init__(self, reason, text=""):
        super().__init__(reason)
        self.text = text


class Timeout(Failure):
    """A command that had not finished within its limit."""


class Stopped(Exception):
    """Nothing more is started, because `stop` was called."""


def short(failure):
    """The reason of an exception, as one line."""
    text = str(failure) if isinstance(failure, Failure) else f"{type(failure).__name__}: {failure}"
    return " / ".join(line.strip() for line in text.splitlines() if line.strip())[-600:]


def run(command, environment=None, limit=LIMIT, grace=0, look=0, complaints=False):
    """What a command wrote to its standard output, with `complaints` what it wrote to its standard error too.

    With `grace`, a command that reaches its limit gets SIGINT and that many seconds to write what it has. With `look`,
    a debugger has that many seconds to tell what it waits in, where there is one.
    """
    # Files and not pipes: a process that outlives its command would keep a pipe open, and us waiting.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = _start([str(word) for word in command], {**os.environ, **(environment or {})}, out, err)
        expired, stacks = False, ""
        try:
            try:
                child.wait(limit)
            except subprocess.TimeoutExpired:
                expired = True
                stacks = _stacks(child.pid, look) if look else ""
                if grace:
                    child.send_signal(signal.SIGINT)
                    _wait(child, grace)
        finally:
            _end(child)
        written, complaint = _read(out), _read(err)
    last = complaint.strip() or written.strip()
    if _state.stopped:
        raise Stopped()
    if expired:
        calls = dict.fromkeys(re.findall(r"\b(?:in|at) (cu[A-Z]\w+|nccl[A-Z]\w+)", stacks))
        where = f", in {', '.join(calls)}" if calls else ""
        wrote = f", last wrote: {last[-300:]}" if last else ""
        raise Timeout(f"not finished in {limit:.0f} s{where}{wrote}", written + complaint + stacks)
    if child.returncode:
        raise Failure(f"exit {child.returncode}: {last[-600:]}", written + complaint)
    return written + complaint if complaints else written


def look_seconds():
    """What a debugger is given the next time."""
    return LOOK_SECONDS if _state.looked else FIRST_LOOK_SECONDS


def stop():
    """Ends all commands that run; those that would follow raise `Stopped`."""
    with _state.lock:
        _state.stopped = True
        running = list(_state.running)
    for child in running:
        kill_session(child.pid)


class _State:
    """The commands that run now, whichever thread started them."""

    def __init__(self):
        self.lock, self.running, self.stopped = threading.Lock(), set(), False
        self.looked = False


_state = _State()


def _start(words, environment, out, err):
    with _state.lock:
        if _state.stopped:
            raise Stopped()
        try:
            child = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment, start_new_session=True
            )
        except OSError as cause:
            raise Failure(f"cannot start {words[0]}: {cause.strerror}") from None
        _state.running.add(child)
        return child


def _stacks(session, seconds):
    """What the threads of a session's executables wait in, where there is a debugger."""
    debugger = shutil.which("gdb") or shutil.which("cuda-gdb")
    if debugger is None:
        return ""
    texts = []
    end = time.monotonic() + seconds
    _state.looked = True
    for process in filter(_is_executable, processes(session)):
        command = [debugger, "-nx", "-p", str(process), "-batch", "-ex", "thread apply all backtrace 12"]
        try:
            left = max(0.1, end - time.monotonic())
            ended = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=left, check=False
            )
            texts.append(ended.stdout.decode(errors="replace"))
        except (OSError, subprocess.TimeoutExpired):
            continue
    return "\n".join(texts)


def _is_executable(process):
    """Whether a process is one of the pack's executables, and no tool that runs it."""
    try:
        return pathlib.Path(os.readlink(f"/proc/{process}/exe")).parent.name in FOLDERS
    except OSError:
        return False


def _read(file):
    file.seek(0)
    return file.read().decode(errors="replace")


def _wait(child, seconds):
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        # A process that hangs in a driver does not end by SIGKILL either: it is left behind.
        pass


def _end(child):
    """Kills what is left of a command's session."""
    end = time.monotonic() + 3
    while kill_session(child.pid) and time.monotonic() < end:
        _wait(child, 0.05)
    _wait(child, 1)
    with _state.lock:
        _state.running.discard(child)


def kill_session(session):
    """Sends SIGKILL to the live processes of a session, whatever their process group; how many there were."""
    found = processes(session)
    for process in found:
        try:
            os.kill(process, signal.SIGKILL)
        except OSError:
            continue
    return len(found)


def processes(session):
    """The live processes of a session."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            # After the name in brackets: state, parent, process group, session.
            state, _, _, of = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(of) == session and state not in "ZX":
                found.append(int(folder.name))
        except (OSError, ValueError):
            continue
    return found
