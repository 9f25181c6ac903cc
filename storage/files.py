"""Encrypted files: ``<root>/<tenant>/<2 hex>/<id>``, written whole or not at all, read in chunks.

Format: ``0x81 | data key id (16) | salt (16)``, then chunks of 64 KiB, each with a tag of 16 bytes; the last one may be
shorter, and is empty only where the file is. The chunks' key is HKDF-SHA256(data key, salt, place), so each file has
one of its own, and nonces can count: ``chunk number (11, big-endian) | 1 where it is the last, else 0``. This is the
STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár: "Online Authenticated-Encryption and its Nonce-Reuse
Misuse-Resistance", CRYPTO 2015) with the parameters of the age format (C2SP/age): chunks cannot be cut off, dropped,
swapped or repeated. Associated data of each: the header and ``tenant|files.content|id``.
"""

import asyncio
import hashlib
import os
import shutil
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from uuid import UUID, uuid4

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from storage.crypto.cipher import Cipher, LocalSealer, Subject
from storage.crypto.envelope import TAG_BYTES, DataKey, Tampered, aad_of
from storage.errors import NotFound
from storage.tenancy import TenantContext

CHUNK = 64 * 1024
_MAGIC = b"\x81"
_SALT = 16
_HEADER = 1 + 16 + _SALT
_COLUMN = "files.content"
_TEMPORARY = ".writing"


@dataclass(frozen=True)
class StoredFile:
    """What was stored: bytes and SHA-256 (hex) of the plain content."""

    size: int
    sha256: str


class _Stream:
    """Seals or opens the chunks of one file, in order."""

    def __init__(self, key: DataKey, header: bytes, place: bytes) -> None:
        salt = header[17:]
        derived = HKDF(hashes.SHA256(), 32, salt, b"file|" + place).derive(key.secret)
        self._aead = AESGCM(derived)
        self._aad = header + place
        self._number = 0

    def _nonce(self, last: bool) -> bytes:
        nonce = self._number.to_bytes(11, "big") + bytes([last])
        self._number += 1
        return nonce

    def seal(self, chunk: bytes, last: bool) -> bytes:
        return self._aead.encrypt(self._nonce(last), chunk, self._aad)

    def open(self, chunk: bytes, last: bool) -> bytes:
        return self._aead.decrypt(self._nonce(last), chunk, self._aad)


class FileStore:
    """Files of all tenants under one folder. A path is made from a tenant's context and an id, never from a name.

    Args:
        root: made where it is missing, for its owner only.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    async def put(
        self,
        context: TenantContext,
        cipher: Cipher,
        file_id: UUID,
        stream: AsyncIterable[bytes] | bytes,
        subject: Subject,
    ) -> StoredFile:
        """Store a file under a subject's key. Where the content comes slowly, take ``cipher.local(subject)`` in a
        short transaction and use ``put_sealed`` after it.

        Raises:
            OSError: the disk is full or not writable; nothing is left behind.
        """
        return await self.put_sealed(context, await cipher.local(subject), file_id, stream)

    async def put_sealed(
        self,
        context: TenantContext,
        sealer: LocalSealer,
        file_id: UUID,
        stream: AsyncIterable[bytes] | bytes,
    ) -> StoredFile:
        """As ``put``, with the key in hand; needs no transaction. A file of this id is replaced as a whole."""
        target = self._path(context, file_id)
        temporary = self._root / _TEMPORARY / str(uuid4())
        await asyncio.to_thread(_make_folders, temporary.parent, target.parent)
        header = _MAGIC + sealer.key.id.bytes + os.urandom(_SALT)
        chunks = _Stream(sealer.key, header, _place(context, file_id))
        digest, size, pending = hashlib.sha256(), 0, bytearray()
        file = await asyncio.to_thread(_create, temporary)
        try:
            await asyncio.to_thread(file.write, header)
            async for piece in _pieces(stream):
                digest.update(piece)
                size += len(piece)
                pending += piece
                if len(pending) > CHUNK:  # one byte more than a chunk: this one is not the last
                    await asyncio.to_thread(_write_chunks, file, chunks, pending)
            await asyncio.to_thread(file.write, chunks.seal(bytes(pending), last=True))
            await asyncio.to_thread(_publish, file, temporary, target)
        except BaseException:
            file.close()
            with suppress(FileNotFoundError):
                temporary.unlink()  # in this thread: one system call, and a cancelled task must not wait again
            raise
        return StoredFile(size, digest.hexdigest())

    async def read(
        self, context: TenantContext, cipher: Cipher, file_id: UUID
    ) -> AsyncIterator[bytes] | None:
        """The content, chunk by chunk; None where its key was destroyed: the person was erased. The transaction may
        end before the iteration does.

        Each chunk is verified before it is given out; that none is missing at the end is known only there, so a
        receiver must throw away what it has got when the iteration raises.

        Raises:
            NotFound: there is no such file.
            Tampered: here or in the iteration: it was changed, cut, or belongs to another tenant, id or key.
        """
        header = await asyncio.to_thread(_header_of, self._path(context, file_id))
        sealer = await cipher.local_of(UUID(bytes=header[1:17]))
        return None if sealer is None else self.read_sealed(context, sealer, file_id)

    async def read_sealed(
        self, context: TenantContext, sealer: LocalSealer, file_id: UUID
    ) -> AsyncIterator[bytes]:
        """As ``read``, with the key in hand."""
        file = await asyncio.to_thread(_open_existing, self._path(context, file_id))
        with file:
            header = await asyncio.to_thread(file.read, _HEADER)
            if len(header) != _HEADER or header[:17] != _MAGIC + sealer.key.id.bytes:
                raise _tampered(file_id)
            chunks = _Stream(sealer.key, header, _place(context, file_id))
            first, sealed = True, await asyncio.to_thread(file.read, CHUNK + TAG_BYTES)
            while True:
                following = await asyncio.to_thread(file.read, CHUNK + TAG_BYTES)
                try:
                    plain = chunks.open(sealed, last=not following)
                except (InvalidTag, ValueError):
                    raise _tampered(file_id) from None
                if plain or not first:
                    yield plain
                if not following:
                    return
                first, sealed = False, following

    async def delete(self, context: TenantContext, file_id: UUID) -> bool:
        """Remove a file; False where there is none."""

        def remove() -> bool:
            try:
                self._path(context, file_id).unlink()
            except FileNotFoundError:
                return False
            return True

        return await asyncio.to_thread(remove)

    async def delete_tenant(self, context: TenantContext) -> int:
        """Remove all files of a tenant; returns how many there were. May be repeated after a crash."""

        def remove() -> int:
            folder = self._root / str(context.tenant_id)
            count = sum(1 for _ in _files_in(folder))
            shutil.rmtree(folder, ignore_errors=False) if folder.exists() else None
            return count

        return await asyncio.to_thread(remove)

    async def sealed_under(self, context: TenantContext, key_id: UUID) -> list[UUID]:
        """Ids of the tenant's files under one data key; reads the head of each file."""
        wanted = _MAGIC + key_id.bytes

        def find() -> list[UUID]:
            folder = self._root / str(context.tenant_id)
            return [UUID(path.name) for path in _files_in(folder) if _starts_with(path, wanted)]

        return await asyncio.to_thread(find)

    async def reseal(
        self, context: TenantContext, old: LocalSealer, new: LocalSealer, file_id: UUID
    ) -> StoredFile:
        """Put a file under another key. A reader sees the old or the new one; after a crash it is one of them.

        Raises:
            Tampered: it was not whole; it stays as it is.
        """
        return await self.put_sealed(context, new, file_id, self.read_sealed(context, old, file_id))

    async def clear_temporary(self, older_than: float) -> int:
        """Remove what a killed process has left half written; returns how many.

        Args:
            older_than: seconds since the last write, longer than any upload pauses.
        """

        def clear() -> int:
            before, count = time.time() - older_than, 0
            for path in (self._root / _TEMPORARY).glob("*"):
                with suppress(FileNotFoundError):
                    if path.stat().st_mtime < before:
                        path.unlink()
                        count += 1
            return count

        return await asyncio.to_thread(clear)

    def _path(self, context: TenantContext, file_id: UUID) -> Path:
        # The last digits: the first ones of a UUIDv7 are the time, and would put all new files into one folder.
        return self._root / str(context.tenant_id) / file_id.hex[-2:] / str(file_id)


def _place(context: TenantContext, file_id: UUID) -> bytes:
    return aad_of(context.tenant_id, _COLUMN, file_id)


def _tampered(file_id: UUID) -> Tampered:
    return Tampered(f"the file {file_id}")


async def _pieces(stream: AsyncIterable[bytes] | bytes) -> AsyncIterator[bytes]:
    if isinstance(stream, bytes):
        for at in range(0, len(stream), CHUNK):
            yield stream[at : at + CHUNK]
    else:
        async for piece in stream:
            yield piece


def _make_folders(*folders: Path) -> None:
    for folder in folders:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        for path in reversed(missing):  # mkdir(parents=True) would give the parents other rights
            path.mkdir(mode=0o700, exist_ok=True)


def _create(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _write_chunks(file: BinaryIO, chunks: _Stream, pending: bytearray) -> None:
    """Write whole chunks, and keep at least one byte for the last."""
    while len(pending) > CHUNK:
        file.write(chunks.seal(bytes(pending[:CHUNK]), last=False))
        del pending[:CHUNK]


def _publish(file: BinaryIO, temporary: Path, target: Path) -> None:
    with file:
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _open_existing(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise NotFound("There is no such file.") from None


def _header_of(path: Path) -> bytes:
    with _open_existing(path) as file:
        header = file.read(_HEADER)
    if len(header) != _HEADER or header[:1] != _MAGIC:
        raise _tampered(UUID(path.name))
    return header


def _starts_with(path: Path, wanted: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(wanted)) == wanted
    except FileNotFoundError:
        return False  # deleted meanwhile


def _files_in(folder: Path) -> Iterator[Path]:
    return (path for path in folder.glob("*/*") if path.is_file())
