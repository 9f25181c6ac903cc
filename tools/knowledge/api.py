"""Documents and search over REST."""

from functools import partial
from uuid import UUID

import msgspec
from litestar import Controller, delete, get, post
from litestar.datastructures import UploadFile
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, MultipartBody

from storage.errors import NotFound, ValidationFailed
from storage.repositories import knowledge
from storage.sql import Session
from storage.tenancy import TenantContext
from tools.knowledge import service
from tools.knowledge.schemas import Document, DocumentIntake, Found, Page, SearchIn
from tools.sdk.context import Resources


class Upload(msgspec.Struct):
    """A multipart form with one field ``file``."""

    file: UploadFile


class DocumentController(Controller):
    path = "/api/v1/knowledge/documents"
    tags = ("Knowledge",)

    @get(opt={"scopes": ["knowledge:read"]})
    async def list_documents(self, session: NamedDependency[Session]) -> list[Document]:
        """Documents, newest first."""
        return msgspec.convert(await knowledge.list_documents(session), list[Document], strict=False)

    @post(opt={"scopes": ["knowledge:write"]}, request_max_body_size=60_000_000)
    async def upload_document(
        self,
        data: MultipartBody[Upload],
        context: NamedDependency[TenantContext],
        intake: NamedDependency[DocumentIntake],
        resources: NamedDependency[Resources],
    ) -> Document:
        """Upload a PDF, Markdown, HTML or text file.

        A file that cannot be read is refused with a code that says why (``encrypted``, ``needs_ocr``,
        ``parse_failed``, …). One that can is stored and searchable a moment later: its state goes from
        ``extracted`` to ``ready``. The same bytes again are the same document.
        """
        if not data.file.filename:
            raise ValidationFailed("The file has no name.", field="file")
        document_id = await intake.accept(context, await data.file.read(), data.file.filename)
        async with resources.database.tenant_session(context) as session:
            return msgspec.convert(await knowledge.get_document(session, document_id), Document)

    @get("/{document_id:uuid}", opt={"scopes": ["knowledge:read"]})
    async def get_document(self, document_id: FromPath[UUID], session: NamedDependency[Session]) -> Document:
        """One document with its state."""
        return msgspec.convert(await knowledge.get_document(session, document_id), Document)

    @get("/{document_id:uuid}/pages/{number:int}", opt={"scopes": ["knowledge:read"]})
    async def get_page(
        self, document_id: FromPath[UUID], number: FromPath[int], session: NamedDependency[Session]
    ) -> Page:
        """The text of one page as stored: what each quote is checked against, character for character."""
        text = await knowledge.page_text(session, document_id, number)
        if text is None:
            raise NotFound("No such page.")
        return Page(document_id, number, text)

    @delete("/{document_id:uuid}", opt={"scopes": ["knowledge:write"]})
    async def delete_document(
        self,
        document_id: FromPath[UUID],
        context: NamedDependency[TenantContext],
        intake: NamedDependency[DocumentIntake],
    ) -> None:
        """Delete a document; from now on nothing of it can be cited."""
        await intake.remove(context, document_id)


class SearchController(Controller):
    path = "/api/v1/knowledge/search"
    tags = ("Knowledge",)

    @post(opt={"scopes": ["knowledge:read"]}, status_code=200)
    async def search(
        self,
        data: JSONBody[SearchIn],
        context: NamedDependency[TenantContext],
        resources: NamedDependency[Resources],
    ) -> list[Found]:
        """The passages that answer a question best, with document and page."""
        session = partial(resources.database.tenant_session, context)
        found = await service.search(
            context, session, resources.embedder, resources.vectors, data.query, data.limit
        )
        return [
            Found(
                document_id=p.document_id,
                document=p.document,
                page=p.page,
                text=p.text,
                score=round(score, 4),
            )
            for p, score in found
        ]
