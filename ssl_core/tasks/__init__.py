"""Contains the built-in pretext tasks: each file here has one subclass of `ssl_core.task.Task`."""
