"""Places behind URLs, through fsspec: reached with credentials of the environment alone, listed whole, faults retried.

Every call to a place goes through `patiently`: what may pass (a lost connection, a server in trouble) is tried again,
what will not is raised as an error of Python's own kinds that names what could not be reached.
"""

from __future__ import annotations

import difflib
import errno
import html
import itertools
import lzma
import re
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, TypeVar

from corpus.sources.base import SourceError

TRIES = 5
REQUEST_TRIES = 3  # of each request to S3, below these: a listing has many, and begins anew where one fails
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 30.0
# One request may wait through time-outs of its own and be tried again below: no new try begins after this.
PATIENCE_SECONDS = 180.0
# A connection that gives nothing for so long is taken for lost.
SILENCE_SECONDS = 30.0
CONNECT_SECONDS = 10.0

_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_BUGS = (TypeError, AttributeError, NameError, LookupError, AssertionError, NotImplementedError, MemoryError)
_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError)
# What is wrong with these is wrong for every file: nothing may be put aside because of it.
_CREDENTIAL_CODES = ("ExpiredToken", "InvalidToken", "InvalidAccessKeyId", "SignatureDoesNotMatch", "TokenRefresh")

_PACKAGES = {
    "s3": "'gristmill[s3]'",
    "s3a": "'gristmill[s3]'",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "hf": "huggingface_hub",
    "http": "aiohttp",
    "https": "aiohttp",
}
"""What `pip install` needs where a protocol's package is missing."""

_SECRETS = frozenset(
    (
        *("key", "secret", "token", "password", "passwd", "pwd", "auth", "apikey", "api_key", "api-key", "sig"),
        *("access_key", "access_token", "access-token", "secret_key", "client_secret", "signature", "awsaccesskeyid"),
        *("aws_access_key_id", "aws_secret_access_key", "aws_session_token", "x-amz-signature", "x-amz-credential"),
        *("x-amz-security-token", "x-goog-signature", "x-goog-credential"),
    )
)
# In github://owner:repository@branch the part before @ is no secret.
_PASSWORD = re.compile(r"(?<!github)(://)[^/?#:]*:[^/?#]*@")
_USER = re.compile(r"(https?://)[^/?#]+@", re.IGNORECASE)
_PARAMETER = re.compile(r"([?&;])([^=&;#]+)=([^&;#]+)")

# Identity of an object's content under the names that stores give it, the surest first.
_MARKS = (
    *("ETag", "etag", "md5Hash", "content_md5", "Content-MD5", "Digest", "blob_id", "sha", "CRC"),
    *("LastModified", "last_modified", "Last-Modified", "mtime", "modify", "modified", "created"),
)
_DEEPEST = 64
_LOOKS_AT_ONCE = 16

T = TypeVar("T")


# --- reaching a place ------------------------------------------------------------------------------------------------


def without_credentials(url: str) -> str:
    """The URL with user names, passwords, keys and signatures replaced by `***`; the same string if it holds none."""
    url = _USER.sub(r"\1***@", _PASSWORD.sub(r"\1***@", url))

    def hide(match: re.Match[str]) -> str:
        return f"{match[1]}{match[2]}=***" if match[2].lower() in _SECRETS else match[0]

    return _PARAMETER.sub(hide, url)


def connect(url: str) -> tuple[Any, str]:
    """The fsspec file system behind a URL and the path in it, as it spells it.

    Options beyond the URL come from the environment: the variables and files of the store's own tools, and fsspec's
    (`FSSPEC_S3_ANON=true`, `FSSPEC_HTTPS_HEADERS='{"Authorization": "…"}'`).

    Raises
    ------
    SourceError
        If the URL holds credentials, its protocol is unknown, the package for it is missing, or the archive that it
        names cannot be opened.
    OSError
        If it cannot be reached now.
    """
    clean = without_credentials(url)
    if clean != url:
        raise SourceError(
            f"{clean!r}: a URL must not hold credentials, since paths are written into every manifest; put them into "
            "the environment (AWS_ACCESS_KEY_ID, HF_TOKEN, ~/.netrc, FSSPEC_HTTPS_HEADERS …) and take them out here"
        )
    from fsspec.core import url_to_fs

    protocols = _protocols_of(url)
    for protocol in protocols:
        _require(protocol, url)
    options: dict[str, Any] = {}
    for protocol in dict.fromkeys(protocols):
        if chosen := _options(protocol):
            options[protocol] = chosen
    if "::" in url:  # archives and caches keep what they saw when they were opened
        options["skip_instance_cache"] = True
    try:
        system, path = patiently(url, lambda: url_to_fs(url, **options))
    except (ConnectionError, TimeoutError):
        raise
    except (OSError, ValueError, TypeError) as error:
        raise SourceError(f"{url!r} cannot be opened: {error}") from error
    for layer in _layers(system):
        if "s3" in protocols_of(layer):
            layer.retries = 1  # requests are tried again by botocore, everything by `patiently`: that is enough
    return system, str(path)


def _protocols_of(url: str) -> list[str]:
    known = _known()
    found = []
    for step in url.split("::"):
        protocol, separator, _ = step.partition("://")
        found.append(protocol if separator else step if step in known else "file")
    return found


def _known() -> set[str]:
    from fsspec import available_protocols

    return {*available_protocols(), *_PACKAGES}


def _require(protocol: str, url: str) -> None:
    from fsspec import get_filesystem_class

    known = _known()
    if protocol not in known:
        near = difflib.get_close_matches(protocol.lower(), sorted(known), n=1, cutoff=0.5)
        raise SourceError(
            f"{url!r}: there is no protocol {protocol!r}"
            + (f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(sorted(_PACKAGES))} and others")
        )
    try:
        get_filesystem_class(protocol)
    except (ImportError, ValueError) as error:
        if protocol not in _PACKAGES:
            raise SourceError(f"{url!r} cannot be read here: {error}") from error
        raise SourceError(
            f"{url!r}: the package that reads {protocol}:// is not installed; pip install {_PACKAGES[protocol]} "
            f"({error})"
        ) from error


def _options(protocol: str) -> dict[str, Any]:
    """Options of a file system: bounded waiting, no listings from before; the environment's are kept beside them."""
    from fsspec.config import conf

    options: dict[str, Any] = {}
    if protocol in ("s3", "s3a"):
        waiting = {"connect_timeout": CONNECT_SECONDS, "read_timeout": SILENCE_SECONDS}
        retries = {"retries": {"total_max_attempts": REQUEST_TRIES, "mode": "standard"}}
        options = {"use_listings_cache": False, "config_kwargs": {**waiting, **retries}}
    elif protocol in ("http", "https"):
        import aiohttp

        # Bytes as they lie there: a compressed file is unpacked later, by its content.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
        client = {"timeout": timeout, "auto_decompress": False, "trust_env": True}
        options = {"headers": {"Accept-Encoding": "identity"}, "client_kwargs": client}
    configured = conf.get(protocol, {})
    return {
        name: {**value, **configured[name]} if isinstance(configured.get(name), dict) else value
        for name, value in options.items()
    }


def protocols_of(system: Any) -> tuple[str, ...]:
    """The protocols that a file system answers to."""
    return (system.protocol,) if isinstance(system.protocol, str) else tuple(system.protocol)


def _layers(system: Any) -> Iterator[Any]:
    """A file system and those it stands upon."""
    while system is not None:
        yield system
        # A cache answers for the place behind it, even when it is asked for its own attributes.
        system = object.__getattribute__(system, "__dict__").get("fs")


def _lister(system: Any) -> Any:
    """Where listings come from: behind a cache, the place itself."""
    from fsspec.implementations.cached import CachingFileSystem

    layers = [layer for layer in _layers(system) if not isinstance(layer, CachingFileSystem)]
    for layer in layers:
        layer.invalidate_cache()
    return layers[0]


def full_name(system: Any, path: str) -> str:
    """A path with its protocol, for people."""
    return str(system.unstrip_protocol(path)) if path else protocols_of(system)[0] + "://"


# --- faults ----------------------------------------------------------------------------------------------------------


def patiently(name: str, call: Callable[[], T]) -> T:
    """The result of `call`, which is repeated while it fails with what may pass.

    At most `TRIES` times, with pauses of 0.25 s, doubled each time (or as long as the server asks, at most 30 s), and
    no new try after `PATIENCE_SECONDS`.

    Raises
    ------
    OSError
        ConnectionError or TimeoutError where a fault did not pass, FileNotFoundError, PermissionError and others where
        it will not; all name `name`.
    SourceError
        If credentials are refused, or the object is no longer the one that was opened.
    """
    began = time.monotonic()
    for attempt in itertools.count(1):
        try:
            return call()
        except Exception as error:
            told, passing = _explain(error, name, attempt)
            if not passing or attempt >= TRIES or time.monotonic() - began > PATIENCE_SECONDS:
                if told is error:
                    raise
                raise told from error
            pause = max(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1), _asked_pause(error))
        time.sleep(min(pause, LONGEST_PAUSE_SECONDS))
    raise AssertionError("unreachable")


def _explain(error: Exception, name: str, attempt: int) -> tuple[Exception, bool]:
    """What to raise for a fault, and whether it may pass."""
    kind, status, text = type(error).__name__, _status(error), f"{type(error).__name__}: {error}"
    if isinstance(error, (SourceError, *_BUGS)):
        return error, False
    if status == 401 or "Credential" in kind or any(code in _code(error) for code in _CREDENTIAL_CODES):
        return SourceError(
            f"{name}: credentials are missing, refused or expired ({text}); set them in the environment "
            "(for a public bucket FSSPEC_S3_ANON=true) and start again"
        ), False
    if status in (412, 416) or kind == "FileExpired":
        return SourceError(f"{name} changed while it was read ({text}); start again to take it in as it is"), False
    if status in (404, 410):
        return FileNotFoundError(errno.ENOENT, text, name), False
    if status == 403:
        return PermissionError(errno.EACCES, text, name), False
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and isinstance(cause, Exception) and not isinstance(cause, LookupError):
        return _explain(cause, name, attempt)  # fsspec says so of servers in trouble too
    if isinstance(error, _LASTING):
        return type(error)(error.errno or errno.ENOENT, error.strerror or text, name), False
    if (status is not None and status not in _PASSING) or isinstance(error, (ValueError, *_DAMAGE)):
        return OSError(errno.EIO, text, name), False
    text += f" ({attempt} tries)"
    if isinstance(error, TimeoutError) or "Timeout" in kind or status in (408, 504):
        return TimeoutError(errno.ETIMEDOUT, text, name), True
    return ConnectionError(errno.EIO, text, name), True


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _status(error: BaseException) -> int | None:
    """The HTTP status behind an error, as the libraries keep it; None if there is none."""
    for step in _chain(error):
        response = getattr(step, "response", None)
        if isinstance(response, Mapping):  # botocore
            places = [(response.get("ResponseMetadata", {}), "HTTPStatusCode")]
            values = (place.get(name) for place, name in places)
        elif type(step).__module__ == "aiohttp.http_exceptions":
            continue  # aiohttp gives a broken answer the status 400, which nobody sent
        else:  # requests and httpx; aiohttp; azure; gcsfs
            places = [(response, "status_code"), (step, "status"), (step, "status_code"), (step, "code")]
            values = (getattr(place, name, None) for place, name in places)
        for value in values:
            if isinstance(value, int) and 100 <= value <= 599:
                return value
    return None


def _code(error: BaseException) -> str:
    """The code that an S3 server gave with its refusal."""
    for step in _chain(error):
        response = getattr(step, "response", None)
        if isinstance(response, Mapping):
            return str(response.get("Error", {}).get("Code", ""))
    return ""


def _asked_pause(error: BaseException) -> float:
    """Seconds of a Retry-After header; 0 if there is none."""
    for step in _chain(error):
        headers = getattr(step, "headers", None)
        if isinstance(headers, Mapping) and str(headers.get("Retry-After", "")).isdigit():
            return float(headers["Retry-After"])
    return 0.0


# --- looking and listing ---------------------------------------------------------------------------------------------


def etag(info: Mapping[str, Any]) -> str:
    """What tells an object from a later one of that name; "" if the store says nothing of the kind."""
    return next(iter(_marks(info)), "")


def marks(info: Mapping[str, Any]) -> frozenset[str]:
    """Everything that `etag` may have taken: stores say more in one answer than in another."""
    return frozenset(_marks(info))


def _marks(info: Mapping[str, Any]) -> Iterator[str]:
    for name in _MARKS:
        if value := info.get(name):
            # One answer of a store gives a time as seconds, another as an object.
            yield str(value.timestamp() if isinstance(value, datetime) else value).strip('"')


def look(system: Any, path: str) -> dict[str, Any] | None:
    """What a place says of a path (`type` is "file" or "directory"); None if nothing is there."""
    name = full_name(system, path)
    place = _lister(system)
    try:
        info: dict[str, Any] = patiently(name, lambda: place.info(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    # Over HTTP everything is a file; a server sends on to the address with a slash where it is a folder.
    if "http" in protocols_of(place) and str(info.get("url", path)).partition("?")[0].endswith("/"):
        info["type"] = "directory"
    return info


def names_in(system: Any, path: str) -> list[str]:
    """Names directly below a folder, sorted; empty if there is no such folder or it cannot be listed."""
    place = _lister(system)
    try:
        entries = patiently(full_name(system, path), lambda: place.ls(path, detail=True))
    except (OSError, SourceError):
        return []
    return sorted({str(entry["name"]).rstrip("/").rpartition("/")[2] for entry in entries})


def list_remote(system: Any, folder: str, depth: int | None = None) -> Iterator[tuple[str, int, str]]:
    """(uri, bytes, etag) of every file below a folder, in no order; 0 bytes where the size is not told.

    `depth` is the number of folders that are gone down into, None for all. Keys that only mark a folder (a slash at
    their end) are none.

    Raises
    ------
    SourceError
        If a folder may not be listed.
    OSError
        If it cannot be listed now.
    """
    place = _lister(system)
    if "http" in protocols_of(place):
        yield from _list_pages(place, folder.rstrip("/"), depth)
        return
    base = folder.rstrip("/")
    for name, info in _find(place, folder, depth):
        inside = f"{base}/" if base else "/" if name.startswith("/") else ""
        if not name.startswith(inside):
            raise SourceError(f"{full_name(system, folder)}: its listing holds {name!r}, which lies outside")
        uri = name[len(inside) :]
        if uri and not uri.endswith("/") and info.get("type") != "directory":
            yield uri, int(info.get("size") or 0), etag(info)


def _find(system: Any, folder: str, depth: int | None) -> Iterable[tuple[str, dict[str, Any]]]:
    from fsspec.asyn import AsyncFileSystem
    from fsspec.spec import AbstractFileSystem

    kind = type(system)
    own = (
        kind._find is not AsyncFileSystem._find
        if issubclass(kind, AsyncFileSystem)
        else kind.find is not AbstractFileSystem.find
    )
    if own:  # one request a thousand keys
        try:
            found: dict[str, Any] = _listed(full_name(system, folder), lambda: system.find(folder, detail=True))
        except FileNotFoundError:
            return []
        return found.items()
    # fsspec's own walk leaves out folders that it cannot list, without a word.
    return _walk(system, folder, depth)


def _listed(name: str, call: Callable[[], T]) -> T:
    try:
        return patiently(name, call)
    except PermissionError as error:
        raise SourceError(f"{name} may not be listed ({error}); allow it, or choose a path beside it") from error


def _walk(system: Any, folder: str, depth: int | None) -> Iterator[tuple[str, dict[str, Any]]]:
    pending, seen = [(folder, 0)], {folder.rstrip("/")}
    while pending:
        path, level = pending.pop()
        name = full_name(system, path)
        if level > _DEEPEST:
            raise SourceError(f"{name}: folders lie more than {_DEEPEST} deep, which looks like a circle")
        try:
            entries = _listed(name, lambda path=path: list(system.ls(path, detail=True)))  # type: ignore[misc]
        except (FileNotFoundError, NotADirectoryError):  # gone since its own folder was listed
            continue
        for info in sorted(entries, key=lambda entry: str(entry["name"])):
            found = str(info["name"])
            if info["type"] != "directory":
                yield found, info
            elif (depth is None or level < depth) and found.rstrip("/") not in seen:
                seen.add(found.rstrip("/"))
                pending.append((found, level + 1))


def _list_pages(system: Any, base: str, depth: int | None) -> Iterator[tuple[str, int, str]]:
    """Files that index pages of a web server link to, below the page they stand on; sizes from their headers."""
    uris: dict[str, None] = {}
    pages, seen = [("", 0)], {""}
    while pages:
        page, level = pages.pop()
        url = f"{base}/{page}"
        if level > _DEEPEST:
            raise SourceError(f"{url}: folders lie more than {_DEEPEST} deep, which looks like a circle")
        try:
            links = _listed(url, lambda url=url: system.ls(url, detail=False))  # type: ignore[misc]
        except FileNotFoundError:
            continue
        for link in sorted(links):
            uri = html.unescape(re.sub(r"^https?:", "", link)).removeprefix(re.sub(r"^https?:", "", base) + "/")
            uri = uri.partition("#")[0].replace("/./", "/").removeprefix("./")
            last = uri.rstrip("/").rpartition("/")[2]
            # Links outside (`//host/…`, `../`), and the ones that sort a page (`?C=M;O=A`), are none of its files.
            if not last or last.startswith("?") or uri.startswith("/") or ".." in uri.split("/"):
                continue
            if not uri.endswith("/"):
                uris[uri] = None
            elif uri not in seen and (depth is None or level < depth):
                seen.add(uri)
                pages.append((uri, level + 1))
    with ThreadPoolExecutor(_LOOKS_AT_ONCE) as pool:
        infos = pool.map(lambda uri: look(system, f"{base}/{uri}"), uris)
        for uri, info in zip(uris, infos, strict=True):
            if info is None:
                yield uri, 0, ""  # a link to nothing: kept, so that it is counted as a file that cannot be opened
            elif info["type"] != "directory":
                yield uri, int(info.get("size") or 0), etag(info)
