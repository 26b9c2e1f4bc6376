"""Unexpected failures are exceptions; each ends in one sentence that a user can act on."""


class ResonatorError(Exception):
    """Something Resonator cannot go on with; `str()` is one sentence for the user."""


class InputInvalid(ResonatorError):
    """A file, flag or setting from the user is not acceptable; the sentence names it and what would be."""


class MessageInvalid(ResonatorError):
    """Bytes from the bus are no message of ours; the sentence says what is wrong with them."""


class Unreachable(ResonatorError):
    """Something that this process stands on did not answer in time; starting again may help."""


class BusUnreachable(Unreachable):
    """The broker, or the peer behind it, did not answer in time."""


class Refused(ResonatorError):
    """The peer understood the request and said no; the sentence is its reason."""


def readable(text: str) -> str:
    """Return somebody's words on one line, without signs that a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else " " if sign.isspace() else "?" for sign in text)


def quotable(text: str, most: int) -> str:
    """Return somebody's words as a sentence can hold them: as `readable`, in at most so many characters."""
    line = readable(text)
    return line if len(line) <= most else line[: most - 3] + "..."
