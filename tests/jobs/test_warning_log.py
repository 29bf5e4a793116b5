"""Warnings reach the log whatever they are made of."""

import os

from jobs.study.warning_log import log_files, warn


def test_a_name_that_is_no_text_does_not_stop_the_job(tmp_path):
    warn(tmp_path, f"skipped, {os.fsdecode(b'photo ') + os.fsdecode(bytes([0xFF]))}.png:\nbroken")
    assert log_files(tmp_path)[0].read_text() == "warning: skipped, photo \\udcff.png: broken\n"
