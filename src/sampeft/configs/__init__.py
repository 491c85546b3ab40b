"""What each command is asked for: a module per command, with a frozen dataclass `Config` and its positional fields, if any.

No heavy library is imported here, so that help and a refused option take no time. `sampeft.commands` does the work.
"""
