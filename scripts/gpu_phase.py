"""A phase of gpu-first: its share of the time, the commands it runs, and what becomes of their failures."""

import concurrent.futures
import os
import time
import traceback

import gpu_run
from gpu_results import CUT, FAILED, FAILURES, IMPOSSIBLE, NOT_RUN, TIMEOUT

# Its processes find the phase's name here.
VARIABLE = "GPU_FIRST_PHASE"
# Less is not worth a start.
LEAST_SECONDS = 1
# Commands that hang are looked into by a debugger, the first of a phase.
LOOKS = 3
# Rows that help others, and whose success finishes no phase.
AUXILIARY = ("MPS",)
# Phases that run no executables of ours, or each with an image of its own.
WITHOUT_IMAGE = ("facts", "peers")


class OutOfTime(Exception):
    """The phase's time is up."""


class Impossible(Exception):
    """This machine lacks something, which the message names."""


def share(minimum, limit, later, left):
    """The seconds for a phase: at most its limit, and no more than leaves the later phases their minimums. Where not
    even all minimums fit into the time left, each gets the same part of its own."""
    needed = minimum + sum(later)
    if needed > left:
        return left * minimum / needed
    return min(limit, left - sum(later))


class Phase:
    """Runs commands and writes rows for one phase, until its time is up."""

    def __init__(self, name, session, seconds):
        self.name, self.session = name, session
        self.start = time.monotonic()
        self.end = self.start + seconds
        self.cut, self.looks = False, LOOKS

    def left(self):
        return self.end - time.monotonic()

    def run(self, command, limit=gpu_run.LIMIT, environment=None, grace=0, complaints=False):
        """What a command wrote; it gets no more than what is left of the phase."""
        left = self.left() - grace
        if left < LEAST_SECONDS:
            self.cut = True
            raise OutOfTime()
        limit = min(limit, self.session.process_limit)
        told = {**self.session.environment, VARIABLE: self.name, **(environment or {})}
        look = gpu_run.look_seconds()
        look = look if self.looks > 0 and left > limit + look else 0
        try:
            return gpu_run.run(command, told, min(limit, left), grace, look, complaints)
        except gpu_run.Timeout:
            self.looks -= 1
            self.cut |= left < limit
            raise

    def row(self, what, verdict, text="", **data):
        if self.session.environment.get("SYNCBN_IMAGE") == "ptx" and self.name not in WITHOUT_IMAGE:
            text, data = f"{text}, PTX" if text else "PTX", {**data, "image": "ptx"}
        self.session.results.row(self.name, what, verdict, text, **data)

    def keep(self, name, text):
        self.session.results.keep(name, text)

    def attempt(self, what, function, *arguments):
        """The row that `function` makes: verdict, text and figures. What it raises becomes the verdict."""
        data = {"auxiliary": True} if what in AUXILIARY else {}
        try:
            verdict, text, *more = function(*arguments)
            data.update(*more)
        except OutOfTime:
            verdict, text = NOT_RUN, "the phase's time was up"
        except Impossible as cause:
            verdict, text = IMPOSSIBLE, str(cause)
        except gpu_run.Stopped:
            raise
        except Exception as failure:
            verdict = TIMEOUT if isinstance(failure, gpu_run.Timeout) else FAILED
            text = gpu_run.short(failure)
            whole = failure.text if isinstance(failure, gpu_run.Failure) else traceback.format_exc()
            self.keep(FAILURES, f"=== {self.name}: {what}: {verdict}\n{text}\n{whole[-20000:]}\n")
        self.row(what, verdict, text, **data)
        return verdict

    def side_by_side(self, attempts, width):
        """Attempts, each a tuple of what, function and arguments, `width` of them at a time."""
        with concurrent.futures.ThreadPoolExecutor(width) as pool:
            running = [pool.submit(self.attempt, *attempt) for attempt in attempts]
            try:
                failures = [future.exception() for future in running]
            except BaseException:
                for future in running:
                    future.cancel()
                gpu_run.stop()
                raise
        # One that failed leaves the others, and the later phases.
        for failure in filter(None, failures):
            raise failure

    def finish(self):
        """The phase's state, recorded."""
        state = CUT if self.cut else self.session.results.state_of(self.name)
        self.session.results.end_phase(self.name, state, time.monotonic() - self.start)


def cores():
    """The processors of this process."""
    return len(os.sched_getaffinity(0))
