"""Reading of the user's text files."""

from os import PathLike
from pathlib import Path


def read_text(file: str | PathLike[str]) -> str:
    """Read a UTF-8 file; convert line ends to newlines and remove a byte order mark.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not UTF-8.
    """
    path = Path(str(file)).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"The text file does not exist. Received: file={str(file)!r}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"The text must be UTF-8; byte {error.start} is not ({error.reason}). "
            f"Received: file={str(file)!r}"
        ) from error
