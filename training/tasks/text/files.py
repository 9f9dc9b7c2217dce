"""Text files of the user."""

from os import PathLike
from pathlib import Path


def read_text(file: str | PathLike[str]) -> str:
    """The text of a UTF-8 file, lines ended by a newline sign, without a byte order mark.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not UTF-8.
    """
    path = Path(str(file)).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"There is no such text file. Received: file={str(file)!r}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"The text must be UTF-8; byte {error.start} is not ({error.reason}). "
            f"Received: file={str(file)!r}"
        ) from error
