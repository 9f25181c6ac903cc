"""Types of request fields: what is too long or of the wrong form is refused before a handler runs, and the description says so."""

from typing import Annotated, Any

from msgspec import Meta

# No control characters: nothing that a person types on purpose, and the way into mail headers and logs.
_LINE = r"^[^\x00-\x1f\x7f\u2028\u2029]*\S[^\x00-\x1f\x7f\u2028\u2029]*$"

Email = Annotated[
    str,
    Meta(
        min_length=3,
        max_length=254,
        pattern=r"^[^@\s\x00-\x1f\x7f<>,;:\"\\]+@[^@\s\x00-\x1f\x7f<>,;:\"\\]+\.[^@\s\x00-\x1f\x7f<>,;:\"\\.]+$",
        description="An e-mail address.",
    ),
]
Name = Annotated[str, Meta(min_length=1, max_length=120, pattern=_LINE)]
Line = Annotated[str, Meta(min_length=1, max_length=500, pattern=_LINE)]
Reason = Annotated[
    str, Meta(min_length=5, max_length=500, pattern=_LINE, description="Why; it goes into the audit log.")
]
Password = Annotated[str, Meta(min_length=1, max_length=1024)]
Opaque = Annotated[str, Meta(min_length=1, max_length=200)]
Code = Annotated[str, Meta(min_length=6, max_length=20)]
Slug = Annotated[str, Meta(min_length=1, max_length=60, pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
Language = Annotated[str, Meta(pattern=r"^[a-z]{2}$", description="ISO 639-1, such as de.")]
Permission = Annotated[str, Meta(max_length=60, pattern=r"^[a-z]+:[a-z]+$")]
JsonObject = dict[str, Any]
