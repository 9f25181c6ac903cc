"""The local model computes what BERT computes and cuts no document; the hosted one speaks the real wire."""

from __future__ import annotations

import asyncio
import json
import math
import multiprocessing
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import SecretStr, ValidationError

from storage.vectors import minilm
from storage.vectors.embedder import Embedder, TooLong, make_embedder
from storage.vectors.minilm import MiniLMEmbedder, ModelDamaged, ensure_model
from storage.vectors.minilm_graph import read_safetensors
from storage.vectors.openai_embedder import OpenAIEmbedder
from storage.vectors.settings import EmbeddingSettings


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    ensure_model(folder)
    return folder


@pytest.fixture(scope="module")
def local(model_dir: Path) -> MiniLMEmbedder:
    return MiniLMEmbedder(model_dir)


def reference(weights: dict[str, np.ndarray], ids: list[int]) -> np.ndarray:
    """BERT's forward pass in NumPy for one text: an implementation that shares no code with the graph."""

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return np.asarray(x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"])

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        return np.asarray(scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"])

    erf = np.vectorize(math.erf)
    embeddings = "embeddings"
    x = weights[f"{embeddings}.word_embeddings.weight"][ids].astype(np.float64)
    x = x + weights[f"{embeddings}.position_embeddings.weight"][: len(ids)]
    x = norm(x + weights[f"{embeddings}.token_type_embeddings.weight"][0], f"{embeddings}.LayerNorm")
    for number in range(6):
        layer = f"encoder.layer.{number}"
        q, k, v = (
            linear(x, f"{layer}.attention.self.{n}").reshape(len(ids), 12, 32)
            for n in ("query", "key", "value")
        )
        scores = np.einsum("ihd,jhd->hij", q, k) / math.sqrt(32)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        mixed = np.einsum("hij,jhd->ihd", scores, v).reshape(len(ids), 384)
        x = norm(x + linear(mixed, f"{layer}.attention.output.dense"), f"{layer}.attention.output.LayerNorm")
        inner = linear(x, f"{layer}.intermediate.dense")
        inner = inner * 0.5 * (1 + erf(inner / math.sqrt(2)))
        x = norm(x + linear(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    mean = x.mean(0)
    return np.asarray(mean / np.linalg.norm(mean))


async def test_graph_computes_what_bert_computes(local: MiniLMEmbedder) -> None:
    texts = [*minilm.PROBE, "Die Werkstatt öffnet am Montag um 8:30 Uhr.", "bike"]
    weights = read_safetensors(minilm._wheel_file("model.safetensors"))
    tokenizer = minilm._load_tokenizer()
    expected = np.stack([reference(weights, tokenizer.encode(text).ids) for text in texts])
    actual = await local.embed_documents(texts)
    assert np.abs(actual - expected).max() < 1e-5
    assert (actual * expected).sum(1).min() > 0.99999
    assert float(expected[0] @ expected[1]) == pytest.approx(minilm.PROBE_COSINE, abs=1e-5)


async def test_batches_keep_the_order_and_do_not_leak_into_each_other(local: MiniLMEmbedder) -> None:
    texts = ["word " * n for n in (200, 1, 30, 250, 2)] + [f"number {n}" for n in range(30)]
    together = await local.embed_documents(texts)
    alone = np.concatenate([await local.embed_documents([text]) for text in texts])
    assert together.shape == (35, 384)
    assert together.dtype == np.float32
    assert np.allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)
    assert np.abs(together - alone).max() < 1e-5


async def test_no_texts_give_no_rows(local: MiniLMEmbedder) -> None:
    assert (await local.embed_documents([])).shape == (0, 384)


async def test_limit_is_exact_and_a_longer_document_is_refused(local: MiniLMEmbedder) -> None:
    assert len(local.offsets("bike " * 254)) == 254 == local.max_tokens
    assert (await local.embed_documents(["bike " * 254])).shape == (1, 384)
    with pytest.raises(TooLong) as caught:
        await local.embed_documents(["short", "bike " * 255])
    assert (caught.value.index, caught.value.tokens, caught.value.limit) == (1, 255, 254)


async def test_long_query_is_read_up_to_the_limit(local: MiniLMEmbedder) -> None:
    cut = await local.embed_query("bike " * 254 + "and a wholly different ending " * 20)
    assert cut.shape == (384,)
    assert np.abs(cut - (await local.embed_documents(["bike " * 254]))[0]).max() < 1e-5


async def test_query_and_document_share_one_space(local: MiniLMEmbedder) -> None:
    documents = await local.embed_documents(["We repair flat tyres.", "The invoice is due in two weeks."])
    scores = documents @ await local.embed_query("my wheel has a puncture")
    assert scores[0] > scores[1] + 0.2


def test_offsets_are_spans_of_the_original_text(local: MiniLMEmbedder) -> None:
    text = "Größe: Über-Rad, 1,5 kg"
    assert [text[a:b] for a, b in local.offsets(text)] == [
        "Gr", "ö", "ße", ":", "Über", "-", "Ra", "d", ",", "1", ",", "5", "kg",
    ]  # fmt: skip


def test_the_graph_is_built_once_and_kept(model_dir: Path) -> None:
    before = (model_dir / minilm.GRAPH_FILE).stat()
    assert ensure_model(model_dir) == model_dir / minilm.GRAPH_FILE
    after = (model_dir / minilm.GRAPH_FILE).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert sorted(p.name for p in model_dir.iterdir()) == [minilm.GRAPH_FILE, f"{minilm.GRAPH_FILE}.lock"]


def test_two_processes_at_once_build_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        inodes = pool.map(built_inode, [tmp_path, tmp_path], chunksize=1)
        pool.close()
        pool.join()
    assert inodes[0] == inodes[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == [minilm.GRAPH_FILE, f"{minilm.GRAPH_FILE}.lock"]


def built_inode(folder: Path) -> int:
    return ensure_model(folder).stat().st_ino


def test_a_damaged_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / minilm.GRAPH_FILE).write_bytes(b"not a graph")
    with pytest.raises(ModelDamaged, match="delete it"):
        MiniLMEmbedder(tmp_path)


class _Endpoint(BaseHTTPRequestHandler):
    """`POST /v1/embeddings`: each text becomes (its length, 1, 0), not normalised, as some servers answer."""

    requests: ClassVar[list[dict[str, Any]]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.requests.append({"path": self.path, "key": self.headers["Authorization"], **body})
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        data = [
            {"object": "embedding", "index": i, "embedding": [float(len(t)), 1.0, 0.0]}
            for i, t in enumerate(texts)
        ]
        answer = {
            "object": "list",
            "data": data,
            "model": "m",
            "usage": {"prompt_tokens": 1, "total_tokens": 1},
        }
        raw = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the parameter name of http.server
        pass


@pytest.fixture
def endpoint() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    class Handler(_Endpoint):
        requests: ClassVar[list[dict[str, Any]]] = []

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1", Handler.requests
    server.shutdown()
    thread.join()
    server.server_close()


def hosted(url: str, **more: Any) -> EmbeddingSettings:
    values = {"embedding_model": "org/tiny", "embedding_dim": 3, "openai_base_url": url, "env": "test"}
    return EmbeddingSettings(**{**values, **more})


async def test_hosted_embedder_sends_strings_and_normalises(
    endpoint: tuple[str, list[dict[str, Any]]],
) -> None:
    url, requests = endpoint
    embedder: Embedder = make_embedder(hosted(url, openai_api_key=SecretStr("k")))
    assert (embedder.model_id, embedder.dim, embedder.max_tokens) == ("openai-org-tiny", 3, 8000)
    vectors = await embedder.embed_documents(["abc", "a"])
    query = await embedder.embed_query("abc")
    assert vectors.dtype == np.float32
    assert np.allclose(vectors, [[3 / 10**0.5, 1 / 10**0.5, 0], [1 / 2**0.5, 1 / 2**0.5, 0]])
    assert np.allclose(query, vectors[0])
    assert [request["input"] for request in requests] == [["abc", "a"], ["abc"]]
    assert {(r["path"], r["key"], r["model"]) for r in requests} == {
        ("/v1/embeddings", "Bearer k", "org/tiny")
    }


async def test_hosted_embedder_refuses_before_it_sends(endpoint: tuple[str, list[dict[str, Any]]]) -> None:
    url, requests = endpoint
    embedder = OpenAIEmbedder(hosted(url))
    with pytest.raises(TooLong):
        await embedder.embed_documents(["a " * 8001])
    assert (await embedder.embed_documents([])).shape == (0, 3)
    assert requests == []
    await embedder.embed_query("a " * 8001)
    assert requests[0]["input"] == [("a " * 8000).strip()]


async def test_hosted_embedder_refuses_another_dimension(endpoint: tuple[str, list[dict[str, Any]]]) -> None:
    with pytest.raises(ValueError, match="expected dimension 4"):
        await OpenAIEmbedder(hosted(endpoint[0], embedding_dim=4)).embed_query("x")


def test_estimated_offsets_cover_every_visible_sign() -> None:
    embedder = OpenAIEmbedder(hosted("http://127.0.0.1:9/v1"))
    text = "Fahrräder ab 1.290 €"
    assert [text[a:b] for a, b in embedder.offsets(text)] == [
        "Fah", "rr", "ä", "der", "ab", "1", ".", "2", "9", "0", "€",
    ]  # fmt: skip


def test_unknown_dimension_and_foreign_production_endpoint_stop_the_start() -> None:
    with pytest.raises(ValueError, match="EMBEDDING_DIM"):
        make_embedder(hosted("http://127.0.0.1:9/v1", embedding_dim=None))
    with pytest.raises(ValidationError, match="OPENAI_BASE_URL"):
        hosted("http://127.0.0.1:9/v1", env="production")
    assert (
        hosted("http://127.0.0.1:9/v1", env="production", model_allow_custom_base_url=True).embedding_dim == 3
    )


def test_empty_variable_means_the_local_model(monkeypatch: pytest.MonkeyPatch, model_dir: Path) -> None:
    monkeypatch.setenv("EMBEDDING_MODEL", "")
    monkeypatch.setenv("MODEL_CACHE_DIR", str(model_dir))
    embedder = make_embedder(EmbeddingSettings())
    assert (embedder.model_id, embedder.dim, embedder.max_tokens) == ("minilm-l6-v2-fp32", 384, 254)


async def test_embedding_leaves_the_event_loop_free(local: MiniLMEmbedder) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    ticker = asyncio.create_task(tick())
    await local.embed_documents(["bike " * 250] * 8)
    ticker.cancel()
    assert ticks >= 3
