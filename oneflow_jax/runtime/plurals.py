"""Numbers of things in messages to users."""


def format_count(number: int, noun: str) -> str:
    """Return a number with a noun in the singular or plural, such as "1 prompt" or "2,000 steps".

    Args:
        number: the number.
        noun: the noun in the singular; its plural has an "s" at the end.
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
