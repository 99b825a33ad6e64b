"""Ask the service to embed a text as a query, and see that it comes out refined; else end with 1 and the reason."""

import json
import os
import sys
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen


def ask(url, body, **headers):
    """The answer's headers and its JSON."""
    request = Request(url, json.dumps(body).encode(), {"content-type": "application/json", **headers})
    try:
        with urlopen(request, timeout=60) as answer:
            return answer.headers, json.load(answer)
    except HTTPError as error:
        sys.exit(f"{url} answered {error.code}: {error.read(1000).decode(errors='replace')}")
    except URLError as error:
        sys.exit(f"{url} does not answer: {error.reason}")


def captions():
    """Of a few pairs of the memory; each of them alone might be one that CLIP knows well enough."""
    memory, collection = os.environ["RECO_MEMORY"], os.environ.get("RECO_MEMORY_COLLECTION", "reco")
    if not memory.startswith("http"):
        sys.exit("test.text: name a text that the memory knows; it is not asked over HTTP here")
    key = os.environ.get("RECO_MEMORY_API_KEY")
    points = f"{memory.partition('?')[0].rstrip('/')}/collections/{collection}/points/scroll"
    _, found = ask(points, {"limit": 100, "with_payload": ["caption"]}, **({"api-key": key} if key else {}))
    known = [(point["payload"] or {}).get("caption") for point in found["result"]["points"]]
    if not any(known):
        sys.exit("the memory has no pair with a caption: fill it first, or name a text in test.text")
    return [caption for caption in known if caption][:8]


texts = [os.environ["TEXT"]] if os.environ.get("TEXT") else captions()
key = os.environ.get("CALLER_KEYS", "").split(",")[0].strip()
headers, answer = ask(
    f"{os.environ['SERVICE']}/v1/embeddings",
    {"model": "clip-reco-query", "input": texts},
    **({"authorization": f"Bearer {key}"} if key else {}),
)
refined = headers.get("x-reco-refined")
if refined not in ("true", "partly"):
    why = headers.get("x-reco-degraded") or headers.get("x-reco-note") or "the memory knows nothing like it"
    sys.exit(f"{texts} stay plain (x-reco-refined: {refined}): {why}")
print(f"refined ({refined}), {len(answer['data'][0]['embedding'])} numbers each: {texts}")
