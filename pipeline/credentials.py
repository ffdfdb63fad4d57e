"""Users, passwords and keys: URIs that hold them may be neither shown nor stored."""

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
_NAMED = re.compile(
    r"""((?:credential|secret|password|passwd|pwd|token)[\w.-]*(?:['"]\s*:|\s*=)\s*)
        (?:'[^']*'|"[^"]*"|[^\s,;&)}]+)""",
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


def without_secrets(said: str) -> str:
    """Return what a client of others says, without addresses and values that are named secret.

    Clients quote the addresses and settings that they were given, and answers that they got.
    """
    told = re.sub(r"\S+", lambda word: "..." if _is_address(word[0]) else word[0], said)
    return _NAMED.sub(r"\1...", told)


def _is_address(word: str) -> bool:
    return "://" in word or ":" in word.rpartition("@")[0]


def without_user(endpoint: str) -> str:
    """Return a service's address without the user and password that it may name."""
    scheme, mark, rest = endpoint.partition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"
