"""How a command ends: a sentence for what the user can mend, and the exit code."""

import errno
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager

from byway.base.errors import UserError

DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
"""What the disk may refuse without being broken."""
PLACE = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP}
"""What a path may be that does not fit what belongs there."""


@contextmanager
def in_sentences() -> Generator[None]:
    """Exit with 2 for what the user can mend, 130 for Ctrl-C, 141 for a closed pipe; other errors are faults."""
    try:
        yield
    except BrokenPipeError:
        # Who read our output has read enough. Python would flush once more as it ends, and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        if error.errno not in DISK | PLACE:
            raise
        where = f"{error.filename}: " if error.filename else ""
        reason = os.strerror(error.errno).lower()
        advice = "make room or allow reading and writing there, then type the same command: it goes on from here."
        if error.errno in PLACE:
            advice = "name another path, or move away what is in its place."
        print(f"byway: {where}{reason}; {advice}", file=sys.stderr)
        sys.exit(2)
    except UserError as error:
        print(f"byway: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("byway: stopped; the same command goes on from here.", file=sys.stderr)
        sys.exit(130)
