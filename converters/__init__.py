"""Programs on the command line: each parses flags, calls ``tfptq`` and prints."""
