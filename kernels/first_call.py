"""Says that a CPU loop is being compiled, so that nobody wonders why a first call takes seconds."""

import logging

from numba.core import event


class _Announcement(event.Listener):
    """Logs one warning in a process, when the first loop of ours is compiled instead of read from the disk."""

    said = False

    def on_start(self, event):
        ours = event.data["dispatcher"].py_func.__module__.startswith("kernels.")
        if ours and not self.said:
            self.said = True
            logging.getLogger("kernels").warning(
                "compiling kernels for this processor: some seconds, once; kept beside the code or in NUMBA_CACHE_DIR"
            )

    def on_end(self, event):
        """Nothing: later calls are quick."""


event.register("numba:compile", _Announcement())
