"""Make common_passwords.bin from zxcvbn's lists and from the text files given as arguments, one password a line."""

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

from zxcvbn.frequency_lists import FREQUENCY_LISTS  # type: ignore[import-untyped]  # the package has no types

from server.auth.password_policy import COMMON_FILE, PREFIX_BYTES, canonical


def packed(words: Iterable[str]) -> bytes:
    """The file's content: README.md has its format."""
    prefixes = {
        hashlib.sha1(canonical(word).encode(), usedforsecurity=False).digest()[:PREFIX_BYTES]
        for word in words
    }
    return b"".join(sorted(prefixes))


def main() -> None:
    words = [word for listed in FREQUENCY_LISTS.values() for word in listed]
    for name in sys.argv[1:]:
        words += Path(name).read_text(encoding="utf-8", errors="ignore").splitlines()
    content = packed(word for word in words if word)
    COMMON_FILE.write_bytes(content)
    sys.stdout.write(f"{len(content) // PREFIX_BYTES} entries, {len(content)} bytes\n")


if __name__ == "__main__":
    main()
