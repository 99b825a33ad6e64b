"""Take a snapshot of the collection in use on each node of Qdrant, and delete the oldest beyond KEEP on each."""

import json
import os
import sys
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

HOURS = 6 * 3600


def ask(url, method="GET"):
    """The result of a call."""
    request = Request(url, method=method, headers={"api-key": os.environ.get("RECO_MEMORY_API_KEY", "")})
    try:
        with urlopen(request, timeout=HOURS) as answer:
            return json.load(answer)["result"]
    except HTTPError as error:
        sys.exit(f"{method} {url} answered {error.code}: {error.read(1000).decode(errors='replace')}")
    except URLError as error:
        sys.exit(f"{method} {url} does not answer: {error.reason}")


nodes, keep = os.environ["NODES"].split(","), int(os.environ["KEEP"])
name = os.environ.get("RECO_MEMORY_COLLECTION", "reco")
aliases = {each["alias_name"]: each["collection_name"] for each in ask(f"{nodes[0]}/aliases")["aliases"]}
collection = aliases.get(name, name)
for node in nodes:
    place = f"{node}/collections/{collection}/snapshots"
    made = ask(place, "POST")
    print(f"{node}: {collection}/{made['name']}, {made['size']:,} bytes", flush=True)
    for old in sorted(ask(place), key=lambda each: each["creation_time"] or "", reverse=True)[keep:]:
        ask(f"{place}/{old['name']}", "DELETE")
        print(f"{node}: deleted {old['name']}", flush=True)
