"""The report of gpu-check, and the commands that it runs."""

import os
import signal
import subprocess


class Failure(Exception):
    """A command that failed: a short reason, and all that it wrote."""

    def __init__(self, reason, text=""):
        super().__init__(reason)
        self.text = text


class Timeout(Failure):
    pass


class Report:
    """What was found: lines go out at once, as a later one may never come."""

    def __init__(self):
        self.bad = self.impossible = 0
        self.notes = []

    def say(self, *lines):
        for line in lines:
            print(line, flush=True)

    def row(self, *cells):
        self.say("| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |")

    def table(self, *titles):
        self.row(*titles)
        self.say("|---" * len(titles) + "|")

    def end(self):
        words = [f"**{self.bad} wrong**" if self.bad else "all well"]
        if self.impossible:
            words.append(f"{self.impossible} rows not possible here")
        self.say("", "; ".join([words[0], ", ".join(words[1:] + self.notes)]).removesuffix("; "))


def short(failure):
    """The reason of an exception, as one line."""
    text = str(failure) if isinstance(failure, Failure) else f"{type(failure).__name__}: {failure}"
    return " / ".join(line.strip() for line in text.splitlines() if line.strip())[-600:]


def run(command, environment=None, timeout=900):
    """What a command wrote to its standard output; it ends with all the processes that it started."""
    child = subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )
    try:
        out, err = child.communicate(timeout=timeout)
    except BaseException as cause:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        if isinstance(cause, subprocess.TimeoutExpired):
            raise Timeout(f"not finished in {timeout} s") from None
        raise
    if child.returncode:
        raise Failure(f"exit {child.returncode}: {(err.strip() or out.strip())[-600:]}", out + err)
    return out
