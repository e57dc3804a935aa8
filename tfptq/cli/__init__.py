"""The programs on the command line: each module with a ``main`` is one, and owns its flags."""
