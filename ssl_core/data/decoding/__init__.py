"""From encoded files to pixels."""
