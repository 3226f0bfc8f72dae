"""How the C library keeps memory that large arrays have used."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def keep() -> None:
    """Reuse freed memory instead of returning it: glibc otherwise maps every array over 32 MB anew.

    Fresh pages cost a fault each; on a virtual machine they were a third of a fine-tuning step.
    """
    if not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, -1)
        library.mallopt(M_TOP_PAD, 64 << 20)
