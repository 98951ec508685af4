"""Bad input as data, run through the program: python -m tests.hostile   (python -m tests.hostile --help).

A case is a row of a table: its group, what is done, and what must come of it. Cases run in forked processes
of one that has the imports behind it; nothing of them reaches the network or leaves its own folder.
"""
