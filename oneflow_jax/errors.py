"""The exceptions that `main` tells in one message, without a traceback."""


class UserError(Exception):
    """What the user gave cannot be used: `main` prints the message alone, without a traceback.

    The message names the file or field, its value, and what to do about it.
    """


class Preempted(Exception):
    """The run was told to leave before its end, and has saved what it had."""
