"""The one exception for what a user can mend: one clear sentence that says what to do."""


class UserError(Exception):
    """Bad input or a bad setting. The command line prints the sentence and exits with code 2."""
