"""Runs of the command line as children of a process that has imported everything, killed where they are told to be.

``python fork_server.py SITE WARM`` runs ``ftengine`` with the arguments WARM, a JSON list, itself, so that all is
imported and read, and then takes a JSON object a line: `arguments` of ``ftengine``, the `log` for what it prints and,
where the child is to be killed, `kill`: [what, n], at the n-th event (from 1) of one kind:

- ``call``: a call of any function of ftengine or its plugins;
- ``disk``: a call that writes, syncs, renames, makes or removes files;
- any other word: a call of the functions of that name in ftengine or its plugins.

With `count`, a file, the child writes there how many of ``call`` and ``disk`` there were. The answer is a line with the
exit code, -9 for a child that was killed. The events of one thread come in the same order in every run; those of two
interleave as they do.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path

sys.path.insert(1, str(Path(__file__).parents[1]))  # as a script it has only its own folder
from forked import leave_after

DISK = {
    "fsync",
    "fdatasync",
    "rename",
    "replace",
    "mkdir",
    "rmdir",
    "unlink",
    "remove",
    "open",
    "write",
    "close",
    "link",
}


class Events:
    """Counts what happens, and kills the process at the event that it waits for."""

    def __init__(self, folders, what=None, at=0):
        self.folders = folders
        self.what, self.at = what, at
        self.counts = {"call": 0, "disk": 0}
        self.named = 0

    def __call__(self, frame, event, argument):
        if event == "call":
            code = frame.f_code
            if code.co_filename.startswith(self.folders):
                self.happened("call")
                if code.co_name == self.what:
                    self.named += 1
                    if self.named == self.at:
                        os.kill(os.getpid(), signal.SIGKILL)
        elif event == "c_call" and argument.__name__ in DISK:
            self.happened("disk")

    def happened(self, what):
        self.counts[what] += 1
        if what == self.what and self.counts[what] == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def child(request, folders):
    """The command line, in a forked process."""
    from ftengine.cli import main

    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    events = Events(folders, *request.get("kill", ()))
    if "kill" in request or "count" in request:
        threading.setprofile(events)
        sys.setprofile(events)
    try:
        main(request["arguments"], prog_name="ftengine")
    finally:
        sys.setprofile(None)
        if "count" in request:
            with open(request["count"], "w") as file:
                json.dump(events.counts, file)


def serve(folders, answers):
    for line in sys.stdin:
        request = json.loads(line)
        assert threading.active_count() == 1, "a process with threads is not to be forked"
        pid = os.fork()
        if pid == 0:
            leave_after(lambda request=request: child(request, folders), request["log"])
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


if __name__ == "__main__":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a process that has used a GPU cannot be forked
    sys.path.insert(0, sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a run prints here is no answer
    import ftengine
    import ftengine_datasets
    from ftengine.cli import main

    try:
        main(json.loads(sys.argv[2]), prog_name="ftengine")
    except SystemExit as ended:
        if ended.code:
            raise
    folders = tuple(os.path.dirname(os.path.dirname(module.__file__)) for module in (ftengine, ftengine_datasets))
    serve(folders, answers)
