"""Types of request fields: what is too long or of the wrong form is refused before a handler runs, and the description says so."""

from typing import Annotated, Any

from litestar.params import Parameter
from msgspec import Meta

END = r"$(?!\n)"
"""The end of a text. Python's ``$`` alone stands before a last line break too, which would come in with it."""
# No control characters: nothing that a person types on purpose, and the way into mail headers and logs.
_CONTROL = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff"
_OUT = rf'@\s{_CONTROL}<>,;:"\\'  # of an address's parts
_ATOM = f"[^{_OUT}]"
_LINE = rf"^[^{_CONTROL}]*[^\s{_CONTROL}][^{_CONTROL}]*{END}"

Email = Annotated[
    str,
    Meta(
        min_length=3,
        max_length=254,
        pattern=rf"^{_ATOM}+@{_ATOM}+\.[^.{_OUT}]+{END}",
        description="An e-mail address.",
    ),
]
Name = Annotated[str, Meta(min_length=1, max_length=120, pattern=_LINE)]
Line = Annotated[str, Meta(min_length=1, max_length=500, pattern=_LINE)]
Reason = Annotated[
    str, Meta(min_length=5, max_length=500, pattern=_LINE, description="Why; it goes into the audit log.")
]
# In an address: Litestar enforces its own constraints there, and not msgspec's.
ReasonParameter = Annotated[
    str,
    Parameter(min_length=5, max_length=500, pattern=_LINE, description="Why; it goes into the audit log."),
]
Password = Annotated[str, Meta(min_length=1, max_length=1024)]
Opaque = Annotated[str, Meta(min_length=1, max_length=200)]
Code = Annotated[str, Meta(min_length=6, max_length=20)]
Slug = Annotated[str, Meta(min_length=1, max_length=60, pattern=rf"^[a-z0-9]+(-[a-z0-9]+)*{END}")]
Language = Annotated[str, Meta(pattern=rf"^[a-z]{{2}}{END}", description="ISO 639-1, such as de.")]
Permission = Annotated[str, Meta(max_length=60, pattern=rf"^[a-z]+:[a-z]+{END}")]
JsonObject = dict[str, Any]
