"""Has one module for each verb of the command line, which reads its options, does the work, and prints."""
