"""Contains the evaluation protocols: each file here has one subclass of `ssl_core.evaluation.protocol.Protocol`."""
