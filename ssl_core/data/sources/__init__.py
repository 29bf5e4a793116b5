"""Contains the built-in data sources: each file here has one subclass of `ssl_core.data.data_source.DataSource`."""
