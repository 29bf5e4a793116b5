"""From records to a table, figures, conclusions, and a report."""
