"""PDF through pdfium."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

from pipeline.errors import ItemError
from pipeline.records import FailureKind, Image

_EVERYWHERE = (-1e6, -1e6, 1e6, 1e6)


class PdfiumDocument:
    """An open PDF. Pages are loaded one at a time.

    Raises `ItemError`: encrypted, unreadable, empty.
    """

    scalable = True

    def __init__(self, path: str, password: str | None, forms: bool) -> None:
        handle, self.password = _load(path, password)
        self._document = pdfium.PdfDocument(handle)
        self.n_pages = len(self._document)
        self.has_forms = self._document.get_formtype() != pdfium_c.FORMTYPE_NONE
        # Filled fields are drawn only if the forms are up before the first page is loaded.
        if forms and self._document.init_forms():
            # pdfium puts off reading the fields to the first page; rare documents hang there.
            # This call makes it read them now, so that the hang is the document's, not a page's.
            pdfium_c.FPDF_RemoveFormFieldHighlight(self._document.formenv)

    def size(self, number: int) -> tuple[float, float]:
        """(width, height) in points as displayed: cropped and rotated. Does not read the page.

        Raises:
            ItemError: unreadable if the page is not there.
        """
        try:
            width, height = self._document.get_page_size(number - 1)
        except pdfium.PdfiumError:
            message = f"pdfium finds {self.n_pages} pages announced, and no page {number}"
            raise ItemError(FailureKind.UNREADABLE, message) from None
        if width > 0 and height > 0:
            return width, height
        # The CropBox misses the MediaBox. Show the whole MediaBox, as other viewers do.
        with self.page(number) as page:
            page.set_cropbox(*_EVERYWHERE)
        width, height = self._document.get_page_size(number - 1)
        return width, height

    @contextmanager
    def page(self, number: int) -> Iterator[pdfium.PdfPage]:
        """A page (from 1), loaded: its content stream is read here."""
        page = self._document[number - 1]
        try:
            yield page
        finally:
            page.close()

    def close(self) -> None:
        """Free the document."""
        self._document.close()


def draw_page(page: pdfium.PdfPage, image: Image) -> None:
    """Draw the page onto all of `image` (height, width, 3), which must be filled white.

    The drawing is stretched to the exact size; rows may be strided, pixels not.
    """
    height, width, _ = image.shape
    bitmap = pdfium_c.FPDFBitmap_CreateEx(
        width, height, pdfium_c.FPDFBitmap_BGR, image.ctypes.data, image.strides[0]
    )
    if not bitmap:
        raise MemoryError
    try:
        flags = pdfium_c.FPDF_ANNOT | pdfium_c.FPDF_REVERSE_BYTE_ORDER
        place = (bitmap, page, 0, 0, width, height, 0, flags)
        pdfium_c.FPDF_RenderPageBitmap(*place)
        if page.formenv:
            pdfium_c.FPDF_FFLDraw(page.formenv, *place)
    finally:
        pdfium_c.FPDFBitmap_Destroy(bitmap)


def _load(path: str, password: str | None) -> tuple[pdfium_c.FPDF_DOCUMENT, str | None]:
    """Load by path, and tell which password did it.

    A document with an empty user password refuses a wrong one, so the job's password is tried
    first and none at all second.
    """
    for attempt in dict.fromkeys((password, None)):
        secret = attempt.encode() + b"\0" if attempt is not None else None
        handle = pdfium_c.FPDF_LoadDocument(path.encode("utf-8", "surrogateescape") + b"\0", secret)
        if handle:
            if pdfium_c.FPDF_GetPageCount(handle) < 1:
                pdfium_c.FPDF_CloseDocument(handle)
                raise ItemError(FailureKind.EMPTY, "the PDF has no page")
            return handle, attempt
        error = pdfium_c.FPDF_GetLastError()
        if error != pdfium_c.FPDF_ERR_PASSWORD:
            break
    if error == pdfium_c.FPDF_ERR_PASSWORD:
        state = "the password given does not open it" if password else "it asks for a password"
        raise ItemError(FailureKind.ENCRYPTED, f"the PDF is encrypted and {state}")
    if error == pdfium_c.FPDF_ERR_SECURITY:
        raise ItemError(FailureKind.ENCRYPTED, "the PDF is encrypted in a way pdfium cannot read")
    raise ItemError(FailureKind.UNREADABLE, "pdfium cannot read the file as a PDF")
