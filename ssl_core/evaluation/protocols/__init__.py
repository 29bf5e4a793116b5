"""Contains the built-in protocols: each file here has one subclass of `ssl_core.evaluation.protocol.Protocol`."""
