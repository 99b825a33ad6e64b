"""Ask the service to embed a text as a query; end with 1 and the reason if it cannot, or does not refine TEXT."""

import json
import os
import sys
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

text, key = os.environ.get("TEXT"), os.environ.get("KEY")
body = json.dumps({"model": "clip-reco-query", "input": [text or "a red circle"]}).encode()
headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
try:
    with urlopen(Request(f"{os.environ['SERVICE']}/v1/embeddings", body, headers), timeout=60) as answer:
        size = len(json.load(answer)["data"][0]["embedding"])
        refined, degraded = answer.headers.get("x-reco-refined"), answer.headers.get("x-reco-degraded")
except HTTPError as error:
    sys.exit(f"the service answered {error.code}: {error.read(1000).decode(errors='replace')}")
except URLError as error:
    sys.exit(f"the service does not answer: {error.reason}")
if degraded:
    sys.exit(f"the vector is plain, because a part failed: {degraded}")
if text and refined != "true":
    sys.exit(f"the vector is plain: the memory knows nothing like {text!r}")
print(f"embedded, {size} numbers, refined: {refined}")
