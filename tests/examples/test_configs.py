"""The configurations that are there to be pasted: each engine's request, made of the file as the engine makes it,
goes to a live service, and what comes back is compared with the vectors of the same Reco.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import numpy as np
import pytest
from PIL import Image
from qdrant_client import QdrantClient, models

from examples.configs import langchain_search, llamaindex_search, qdrant_refined_query
from reco_plugin import Pair, Reco
from reco_plugin.client import Client

from .conftest import Live

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).resolve().parents[2] / "examples" / "configs"
KEY = "a-key-of-the-service"
TEXTS = ["a small red circle", 'the "large" blue\nsquare', "крас­ный круг 🔴"]
WRITTEN_DIMENSION = "512"  # in the files, which are for ViT-B/32
PLACEHOLDER = re.compile(r"\$\{(?:(parameters|credential)\.)?(\w+)(?::-(\w+))?\}")


@pytest.fixture(scope="module")
def stocked(drawings: list[Pair]) -> Iterator[Reco]:
    folder = CONFIGS.parents[1] / "triton_models"
    with Reco.open(folder, memory=":memory:") as reco:
        reco.memory.add(drawings)
        yield reco


@pytest.fixture(scope="module")
def url(stocked: Reco, live: Live) -> Iterator[str]:
    with live(stocked, api_keys=[KEY]) as url:
        yield url


@pytest.fixture(scope="module")
def open_url(stocked: Reco, live: Live) -> Iterator[str]:
    """The same without keys, as the snippets have it."""
    with live(stocked) as url:
        yield url


@pytest.fixture(scope="module")
def image(drawings: list[Pair]) -> str:
    packed = io.BytesIO()
    drawn = drawings[3].image
    assert isinstance(drawn, Image.Image)
    drawn.save(packed, "PNG")
    return base64.b64encode(packed.getvalue()).decode()


def config(name: str, url: str) -> Any:
    """A file with the address and the key of this test's service in it."""
    text = (CONFIGS / name).read_text(encoding="utf-8")
    return json.loads(text.replace("http://reco:8080", url).replace("YOUR_KEY", KEY))


def post(url: str, body: Any, headers: dict[str, str] | None = None) -> Any:
    content = body if isinstance(body, str) else json.dumps(body)
    answer = httpx.post(url, content=content, headers={"content-type": "application/json"} | (headers or {}))
    assert answer.status_code == 200, answer.text
    return answer.json()


def close(found: Any, expected: Any) -> bool:
    return bool(np.allclose(np.asarray(found, np.float32), expected, atol=1e-5))


def test_all_files_are_tried_here() -> None:
    tried = Path(__file__).read_text(encoding="utf-8")
    kinds = (".json", ".xml", ".sd", ".py")
    files = [path for path in CONFIGS.rglob("*") if path.suffix in kinds and not path.stem.startswith("__")]
    assert len(files) > 10
    untried = [str(path.relative_to(CONFIGS)) for path in files if path.name not in tried and path.stem not in tried]
    assert untried == []


# --- OpenSearch --------------------------------------------------------------------------------------------------


def opensearch(connector: dict[str, Any], **parameters: str) -> Any:
    """What ml-commons sends: the templates filled by text, after what is no JSON was escaped."""
    escaped = {name: value if name == "input" else json.dumps(value)[1:-1] for name, value in parameters.items()}
    known = {"parameters": {**connector["parameters"], **escaped}, "credential": connector["credential"]}
    (action,) = connector["actions"]

    def filled(template: str) -> str:
        return PLACEHOLDER.sub(lambda found: str(known[found[1]].get(found[2], found[3])), template)

    headers = {name: filled(value) for name, value in action["headers"].items()}
    body = filled(action["request_body"])
    json.loads(body)
    return post(filled(action["url"]), body, headers)


@pytest.mark.parametrize(("alias", "refine"), [("clip-reco-query", True), ("clip", False)])
def test_opensearch_embeds_texts(url: str, stocked: Reco, alias: str, refine: bool) -> None:
    connector = config("opensearch/connector-text.json", url)
    assert connector["parameters"]["model"] == "clip-reco-query"
    assert connector["actions"][0]["post_process_function"] == "connector.post_process.openai.embedding"
    answer = opensearch(connector, input=json.dumps(TEXTS), model=alias)  # as connector.pre_process.openai.embedding
    assert close([row["embedding"] for row in answer["data"]], stocked.embed_texts(TEXTS, refine=refine))


@pytest.mark.parametrize(("alias", "refine"), [("clip-reco-query", True), ("clip", False)])
def test_opensearch_embeds_a_text_an_image_or_both(
    url: str, stocked: Reco, image: str, alias: str, refine: bool
) -> None:
    connector = config("opensearch/connector-multimodal.json", url)
    assert connector["parameters"].pop("input_docs_processed_step_size") == 2
    text_vector = stocked.embed_texts([TEXTS[1]], refine=refine)[0]
    image_vector = stocked.embed_images([base64.b64decode(image)], refine=refine, target="image")[0]
    both = text_vector + image_vector
    for parts, expected in (
        ({"inputText": TEXTS[1]}, text_vector),
        ({"inputImage": image}, image_vector),
        ({"inputText": TEXTS[1], "inputImage": image}, both / np.linalg.norm(both)),
    ):
        assert close(opensearch(connector, model=alias, **parts)["embedding"], expected)


def test_opensearch_files_name_the_same_field_and_trust_the_address() -> None:
    pipeline = config("opensearch/pipeline.json", "http://reco:8080")["processors"][0]["text_image_embedding"]
    query = config("opensearch/query.json", "http://reco:8080")["query"]["neural"]
    assert [pipeline["embedding"]] == [*query]
    (trusted,) = config("opensearch/trust.json", "http://reco:8080")["persistent"][
        "plugins.ml_commons.trusted_connector_endpoints_regex"
    ]
    assert re.match(trusted, "http://reco:8080/model/clip-reco-query/invoke")
    assert not re.match(trusted, "http://elsewhere:8080/v1/embeddings")


# --- Elasticsearch -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("alias", "refine"), [("clip-reco-query", True), ("clip", False)])
def test_elasticsearch_by_its_openai_service(url: str, stocked: Reco, image: str, alias: str, refine: bool) -> None:
    settings = config("elasticsearch/inference-openai.json", url)["service_settings"]
    assert settings["model_id"] == "clip-reco-query"
    query = config("elasticsearch/query.json", "")
    assert query["knn"]["k"] == query["size"] <= query["knn"]["num_candidates"]
    body = {"input": [*TEXTS, f"data:image/png;base64,{image}"], "model": alias}
    answer = post(settings["url"], body, {"Authorization": f"Bearer {settings['api_key']}"})
    *texts, picture = (row["embedding"] for row in answer["data"])
    assert close(texts, stocked.embed_texts(TEXTS, refine=refine))
    assert close(picture, stocked.embed_images([base64.b64decode(image)], refine=refine, target="image")[0])


# --- Vespa -------------------------------------------------------------------------------------------------------


def embedders() -> dict[str, ElementTree.Element]:
    root = ElementTree.parse(CONFIGS / "vespa" / "services.xml").getroot()
    return {str(one.get("id")): one for one in root.iter("component") if one.get("type") == "openai-embedder"}


@pytest.mark.parametrize(("name", "refine"), [("clip", False), ("reco", True)])
def test_vespa_has_an_embedder_per_side(url: str, stocked: Reco, name: str, refine: bool) -> None:
    settings = {element.tag: str(element.text) for element in embedders()[name]}
    assert settings["dimensions"] == WRITTEN_DIMENSION
    body = {"input": TEXTS, "model": settings["model"], "dimensions": stocked.manifest.dimension}  # always sent
    endpoint = settings["endpoint"].replace("http://reco:8080", url)
    answer = post(endpoint, body, {"Authorization": f"Bearer {KEY}"})
    assert close([row["embedding"] for row in answer["data"]], stocked.embed_texts(TEXTS, refine=refine))


def test_vespa_files_fit_together() -> None:
    schema = (CONFIGS / "vespa" / "product.sd").read_text(encoding="utf-8")
    query = config("vespa/query.json", "")
    assert set(re.findall(r"x\[(\d+)\]", schema)) == {WRITTEN_DIMENSION}
    assert f"rank-profile {query['ranking']} " in schema
    (field, vector) = re.findall(r"nearestNeighbor\((\w+), (\w+)\)", query["yql"])[0]
    assert f"field {field} type tensor<float>" in schema
    assert f"query({vector}) tensor<float>" in schema
    (asked,) = re.findall(r"embed\((\w+), @text\)", query[f"input.query({vector})"])
    (fed,) = re.findall(r"embed (\w+)", schema)
    assert [fed, asked] == [*embedders()]


# --- Weaviate ----------------------------------------------------------------------------------------------------


def weaviate(name: str, url: str) -> dict[str, Any]:
    """Settings of the module of a class; its properties exist."""
    made = config(f"weaviate/{name}", url)
    ((_, settings),) = made["vectorConfig"]["default"]["vectorizer"].items()
    embedded = {*settings.get("textFields", []), *settings["imageFields"]}
    assert embedded <= {one["name"] for one in made["properties"]} == {"title", "image"}
    # a title in the vector would be found less often by refined queries, and this module has no plain ones
    assert ("title" in embedded) is (name == "class-clip.json")
    assert isinstance(settings, dict)
    return settings


@pytest.mark.parametrize(("input_type", "refine"), [("query", True), ("document", False)])
def test_weaviate_says_query_or_document_by_voyages_module(
    url: str, stocked: Reco, image: str, input_type: str, refine: bool
) -> None:
    settings = weaviate("class-voyageai.json", url)
    parts = [
        {"type": "text", "text": TEXTS[0]},
        {"type": "image_base64", "image_base64": f"data:image/png;base64,{image}"},
    ]
    body = {
        "inputs": [{"content": [part]} for part in parts],
        "model": settings["model"],
        "truncation": True,
        "input_type": input_type,
    }
    answer = post(f"{settings['baseURL']}/multimodalembeddings", body, {"Authorization": f"Bearer {KEY}"})
    text_vector, image_vector = (row["embedding"] for row in answer["data"])
    assert close(text_vector, stocked.embed_texts(TEXTS[:1], refine=refine)[0])
    assert close(image_vector, stocked.embed_images([base64.b64decode(image)], refine=refine, target="image")[0])


def test_weaviate_by_its_clip_module_is_plain(open_url: str, stocked: Reco, image: str) -> None:
    settings = weaviate("class-clip.json", open_url)
    answer = post(f"{settings['inferenceUrl']}/vectorize", {"texts": TEXTS, "images": [image]})
    assert close(answer["textVectors"], stocked.embed_texts(TEXTS, refine=False))
    assert close(answer["imageVectors"], stocked.embed_images([base64.b64decode(image)], refine=False))
    assert httpx.get(f"{open_url}/.well-known/ready").status_code == 204
    assert httpx.get(f"{open_url}/meta").json()


# --- Python ------------------------------------------------------------------------------------------------------


def test_qdrant_is_searched_with_a_refined_vector(open_url: str, stocked: Reco, drawings: list[Pair]) -> None:
    images = stocked.embed_images([pair.image for pair in drawings], refine=False)  # type: ignore[misc]
    refined = stocked.embed_texts(["a red circle"], refine=True)[0]
    qdrant = QdrantClient(":memory:")
    space = models.VectorParams(size=stocked.manifest.dimension, distance=models.Distance.COSINE)
    qdrant.create_collection("products", vectors_config={"clip": space})
    points = [models.PointStruct(id=row, vector={"clip": one.tolist()}) for row, one in enumerate(images)]
    qdrant.upsert("products", points)
    with Client(open_url) as client:
        found = qdrant_refined_query.search(client, qdrant, "products", "a red circle", limit=5, using="clip")
        asked = client.embed(["a red circle"], modality="text", refine=True)
        back = np.sort(asked.plain_scores([[point.score for point in found]])[0])[::-1]
        least = float(back[1:3].mean())  # between the second and the third
        two = qdrant_refined_query.search(client, qdrant, "products", "a red circle", least=least, using="clip")
    qdrant.close()
    assert [point.id for point in two] == [point.id for point in found[:2]]
    assert [point.id for point in found] == np.argsort(-(images @ refined), kind="stable")[:5].tolist()
    assert found[0].score == pytest.approx(float((images @ refined).max()), abs=1e-5)


@pytest.fixture(scope="module")
def pictures(drawings: list[Pair], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("pictures")
    for pair in drawings:
        pair.image.save(folder / f"{pair.id}.png")  # type: ignore[union-attr]
    return [str(folder / f"{pair.id}.png") for pair in drawings]


def test_frameworks_search_plain_pictures_with_refined_texts(open_url: str, stocked: Reco, pictures: list[str]) -> None:
    found = langchain_search.search(open_url, "a blue box", pictures)
    assert [(d.page_content, pytest.approx(score, abs=1e-4)) for d, score in found] == ranked(stocked, pictures)
    nodes = llamaindex_search.search(open_url, "a blue box", pictures)
    expected = ranked(stocked, pictures)
    assert [(one.node.get_content(), pytest.approx(one.score, abs=1e-4)) for one in nodes] == expected


def ranked(reco: Reco, pictures: list[str]) -> list[tuple[str, float]]:
    query = reco.embed_texts(["a blue box"], refine=True)[0]
    cosines = reco.embed_images(pictures, refine=False) @ query
    return [(pictures[row], float(cosines[row])) for row in np.argsort(-cosines)[:3]]
