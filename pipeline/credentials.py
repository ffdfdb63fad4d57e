"""Telling URIs that hold a user, password or key: they may be neither shown nor stored."""

from __future__ import annotations

import re

NO_CREDENTIALS = (
    "the URI holds a user, password or key; take it out and use the environment or a profile"
)

# Searched from the "://" on, not from the scheme's first letter: that would take time that grows
# with the square of a long text's length.
_USER = re.compile(
    r"""(?<=[\w+.-])(?<!\babfs)(?<!\babfss)(?<!\bhdfs)(?<!\bviewfs)://[^/?\s]*@   # user@
      | (?<=[\w+.-])://[^/?\s@\[]*:(?!\d*(?:[/?\s]|$))    # :password, whatever follows it""",
    re.VERBOSE | re.IGNORECASE,
)
_KEY = re.compile(
    r"""[?&;](?:[\w.-]*[_.-])?(?:access[_-]?key(?:[_-]?id)?|account[_-]?key
        |secret\w*|password|passwd|pwd|token|jwt|credentials?|sig|signature|api[_-]?key
        |private[_-]?key)=
      | [?&;](?:key|auth|code)=    # not page_key or zip_code""",
    re.VERBOSE | re.IGNORECASE,
)


def holds_credentials(text: str) -> bool:
    """Return True if there is a URI in the text that names a user or password.

    Secret keys are pasted unescaped, slashes and all, so a colon that no port follows is enough.
    Azure's container@account and the user@ of HDFS say where a file is, and are let through.
    """
    for word in text.split() if "://" in text else ():
        _, _, rest = word.partition("://")
        if _USER.search(word) or _KEY.search(rest):
            return True
    return False
