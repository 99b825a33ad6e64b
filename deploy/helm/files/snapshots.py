"""Take snapshots of the memory in use on each node of Qdrant, and delete the oldest beyond KEEP on each.

Of its collection first, then of the one beside it with what was learned and said: so what the first names is there.
"""

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
beside = f"{collection}--learned"
for each in (collection, beside):  # all nodes' of one, then of the other: what is learned meanwhile is in the latter
    if each == beside and not ask(f"{nodes[0]}/collections/{beside}/exists")["exists"]:
        break
    for node in nodes:
        place = f"{node}/collections/{each}/snapshots"
        made = ask(place, "POST")
        print(f"{node}: {each}/{made['name']}, {made['size']:,} bytes", flush=True)
        for old in sorted(ask(place), key=lambda one: one["creation_time"] or "", reverse=True)[keep:]:
            ask(f"{place}/{old['name']}", "DELETE")
            print(f"{node}: deleted {old['name']}", flush=True)
