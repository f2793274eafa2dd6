"""What a forked process does: its work, with what it prints in files, and nothing of what its parent has yet to do."""

import os
import sys
import traceback


def leave_after(work, stdout, stderr=None):
    """Call ``work()``, and never return: the process ends with its exit code, 0 if it gives none, 1 for an error.

    What it prints is added to the file `stdout`, and to `stderr` if that is another.
    """
    code = 1
    try:
        for descriptor, file in ((1, stdout), (2, stderr or stdout)):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        try:
            work()
            code = 0
        except SystemExit as ended:
            code = ended.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
