"""Copy SOURCE out of a bucket into TARGET: a file, a folder, or what the pattern in the last part of its name means."""

import os
import re
import shutil
import sys
from fnmatch import fnmatchcase
from pathlib import Path

from reco_plugin.data.source import expand_braces

try:
    from pyarrow import ArrowException
    from pyarrow.fs import FileSelector, FileSystem, FileType
except ImportError:
    sys.exit("this image has no pyarrow, which reads buckets: take the variant jobs of deploy/Dockerfile")


def copy(bucket, found, place):
    """One file or folder of the bucket; returns its bytes."""
    if found.type == FileType.Directory:
        inside = bucket.get_file_info(FileSelector(found.path))
        return sum(copy(bucket, each, place / each.base_name) for each in inside if each.base_name)
    place.parent.mkdir(parents=True, exist_ok=True)
    with bucket.open_input_stream(found.path) as source, place.open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
    return found.size


source, target = os.environ["SOURCE"], Path(os.environ["TARGET"])
parent, _, last = source.rstrip("/").rpartition("/")
top, folder = re.fullmatch(r"(\w+://[^/]*)/?(.*)", parent).groups()  # a folder's name is no URL: it may hold " " and %
patterns = expand_braces(last)
try:
    bucket, root = FileSystem.from_uri(f"{top}/")
    found = [
        each
        for each in bucket.get_file_info(FileSelector(f"{root.rstrip('/')}/{folder}".rstrip("/")))
        if any(fnmatchcase(each.base_name, pattern) for pattern in patterns)
    ]
    if not found:
        sys.exit(f"{source}: there is nothing of that name")
    for each in found:
        size = copy(bucket, each, target / each.base_name)
        print(f"{parent}/{each.base_name}: {size:,} bytes", flush=True)
except (ArrowException, OSError) as error:
    sys.exit(f"{source} cannot be read: {error}")
