"""One module for each verb of the command line: reads its options, does the work, and prints."""
