"""Makes a table, figures, conclusions, and a report of records."""
