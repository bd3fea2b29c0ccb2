"""From the usual environment to a file system of pyarrow (credentials, endpoint, region), and what its errors mean.

S3 takes what AWS's own tools take: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SESSION_TOKEN), a profile
(AWS_PROFILE), a role of the machine; AWS_REGION or AWS_DEFAULT_REGION; AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL for
a store that is not Amazon's; AWS_CA_BUNDLE; AWS_NO_SIGN_REQUEST=true for public buckets. Google's: application
default credentials (GOOGLE_APPLICATION_CREDENTIALS); STORAGE_EMULATOR_HOST for a store that is not Google's;
GOOGLE_NO_SIGN_REQUEST=true.

Stores that are not Amazon's often know nothing of its newer checksums (HTTP 411, or objects of a wrong size): the
commands set AWS_REQUEST_CHECKSUM_CALCULATION and AWS_RESPONSE_CHECKSUM_VALIDATION to when_required for them, unless
they are set (`command_line.run`); a program that calls the library sets them itself.
"""

from __future__ import annotations

import os
import re
from datetime import timedelta
from typing import Any

import pyarrow as pa
from pyarrow import fs

from ser_batch.errors import StoreError

CONNECT_TIMEOUT = 5.0
"""Seconds to a connection; pyarrow's own is 1, too short across an ocean."""
ATTEMPTS = 3
"""Times that pyarrow itself makes a request, a second in all, before our own patience begins."""
GOOGLE_PATIENCE = timedelta(seconds=10)
"""For how long Google's client tries by itself; its default is 15 minutes."""
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


def connect(scheme: str, bucket: str) -> fs.FileSystem:
    """A file system whose paths are `bucket/key`; the store is not asked yet.

    Raises:
        StoreError: the region of the bucket is neither given nor to be found out, or a setting makes no sense.
    """
    try:
        return _google() if scheme == "gs" else _amazon(bucket)
    except (pa.ArrowException, OSError) as error:
        raise StoreError(
            f"{scheme}://{bucket} cannot be connected to",
            got=error,
            remedy="Check the endpoint, the region and the keys.",
        ) from error


def _amazon(bucket: str) -> fs.FileSystem:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    options: dict[str, Any] = {
        "anonymous": _is_set("AWS_NO_SIGN_REQUEST"),
        "region": _region(bucket, endpoint),
        "connect_timeout": CONNECT_TIMEOUT,
        "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        # A part is one PUT, made where it is waited for.
        "allow_delayed_open": True,
        "background_writes": False,
    }
    if endpoint:
        options["endpoint_override"] = endpoint
    if certificates := os.environ.get("AWS_CA_BUNDLE"):
        options["tls_ca_file_path"] = certificates
    return fs.S3FileSystem(**options)


def _region(bucket: str, endpoint: str | None) -> str | None:
    """As given; Amazon is asked where the bucket is, others do not mind."""
    given = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if given or endpoint or os.environ.get("AWS_PROFILE"):
        # None: pyarrow reads the profile's.
        return given or ("us-east-1" if endpoint else None)
    try:
        return str(fs.resolve_s3_region(bucket))
    except OSError as error:
        raise StoreError(
            f"the region of s3://{bucket} is not known",
            got=_first_line(error),
            remedy="Set AWS_REGION, or AWS_ENDPOINT_URL for a store that is not Amazon's; does the bucket exist?",
        ) from error


def _google() -> fs.FileSystem:
    endpoint = os.environ.get("STORAGE_EMULATOR_HOST")
    options: dict[str, Any] = {"retry_time_limit": GOOGLE_PATIENCE}
    if _is_set("GOOGLE_NO_SIGN_REQUEST") or endpoint:
        options["anonymous"] = True
    if endpoint:
        scheme, _, host = endpoint.rpartition("://")
        options |= {"scheme": scheme or "http", "endpoint_override": host}
    return fs.GcsFileSystem(**options)


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true", "yes", "on")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


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
