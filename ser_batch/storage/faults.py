"""What an error of a store means: whether it may pass, and how it is told to a user."""

from __future__ import annotations

import re

from ser_batch.errors import StoreError

# The names that the AWS SDK has for what may pass, as pyarrow hands them on; Google's status codes in words.
_PASSING = re.compile(
    r"NETWORK_CONNECTION|INTERNAL_FAILURE|SERVICE_UNAVAILABLE|THROTTLING|SLOW_DOWN|REQUEST_TIMEOUT|REQUEST_EXPIRED"
    r"|HTTP status 5\d\d|HTTP status 429|curlCode|Timeout|timed out|UNAVAILABLE|DEADLINE_EXCEEDED"
    r"|[Rr]etry policy exhausted"
)
_UNREACHABLE = re.compile(
    r"NETWORK_CONNECTION|curlCode|Timeout|UNAVAILABLE|Could not (?:connect|resolve)|HTTP status 5\d\d"
)
_NO_BUCKET = re.compile(r"NO_SUCH_BUCKET|bucket does not exist|The specified bucket")
_REFUSED = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|INVALID_CLIENT_TOKEN_ID|UNRECOGNIZED_CLIENT"
    r"|TOKEN|HTTP status 40[13]|PERMISSION_DENIED|UNAUTHENTICATED|REQUEST_TIME_TOO_SKEWED|Forbidden|Unauthorized"
)
_ELSEWHERE = re.compile(r"PermanentRedirect|HTTP status 301|AuthorizationHeaderMalformed|IllegalLocationConstraint")
LONGEST = 240
"""Characters of a store's words that are repeated."""
_NO_TOKEN = "Could not create a OAuth2 access token"
"""Google's client without credentials; it takes that for a failure that may pass."""
_FROM_GOOGLE = "google::cloud::Status"
_NO_FOLDER = ("No such ", "Cannot use file ")
"""How pyarrow's Google file system begins what it finds out by itself."""
_REQUEST_ID = re.compile(r"\s*\(Request ID: [^)]*\)")


def no_such_folder(error: OSError) -> bool:
    """Whether it says of a listing or a deletion that there is nothing below this key, in a bucket that is there.

    pyarrow tells that by FileNotFoundError of S3. Of Google's store it does not, and means the bucket where it does.
    """
    if _FROM_GOOGLE in str(error):
        return False
    return isinstance(error, FileNotFoundError) or str(error).startswith(_NO_FOLDER)


def may_pass(error: OSError) -> bool:
    """Whether the same request may succeed a while later: the network, an overloaded or restarting store."""
    return bool(_PASSING.search(str(error))) and _NO_TOKEN not in str(error)


def reason(error: OSError) -> str:
    """One line on what the store, or the way to it, has said."""
    text = _REQUEST_ID.sub("", str(error)).partition("\n")[0].partition(" error_info=")[0].rstrip(": .")
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def store_error(bucket: str, error: OSError, keys: str) -> StoreError:
    """The error of a store that does not serve a bucket (`s3://name`) at all.

    Args:
        keys: where its credentials are taken from.
    """
    text = str(error)
    if isinstance(error, FileNotFoundError) or _NO_BUCKET.search(text):
        return StoreError(f"there is no bucket {bucket}", remedy="Check its name and the endpoint.")
    if _ELSEWHERE.search(text):
        return StoreError(f"{bucket} is in another region", got=reason(error), remedy="Set AWS_REGION to its own.")
    if _NO_TOKEN in text:
        return StoreError(f"there are no credentials for {bucket}", got=reason(error), remedy=f"Give some ({keys}).")
    if _UNREACHABLE.search(text):
        return StoreError(
            f"the store of {bucket} cannot be reached", got=reason(error), remedy="Check the endpoint and the network."
        )
    if _REFUSED.search(text):
        return StoreError(
            f"the store refuses access to {bucket}", got=reason(error), remedy=f"Check the keys ({keys})."
        )
    if "MissingContentLength" in text or "HTTP status 411" in text:
        return StoreError(
            f"the store of {bucket} does not know the checksums that are sent",
            got=reason(error),
            remedy="Set AWS_REQUEST_CHECKSUM_CALCULATION=when_required, as the commands do by themselves.",
        )
    return StoreError(f"{bucket} cannot be used", got=reason(error))
