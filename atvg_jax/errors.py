"""The one exception that a user's own input can cause."""


class InputError(ValueError):
    """A file, value or setting from the user cannot be used.

    The message is one line: what is wrong, with which file or value, and what to do. Command lines
    print it and exit with status 2; data preparation turns it into a reject.

    Attributes:
        reason: short machine-readable word for reports, such as ``unreadable`` or ``no_face``.
    """

    def __init__(self, message: str, reason: str = "unusable"):
        super().__init__(message)
        self.reason = reason
