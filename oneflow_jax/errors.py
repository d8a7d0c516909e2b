"""The one exception that stands for a mistake of the user's."""


class UserError(Exception):
    """What the user gave cannot be used: `main` prints the message alone, without a traceback.

    The message names the file or field, its value, and what to do about it.
    """
