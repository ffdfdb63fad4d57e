"""Hostile PDFs: what each is, byte by byte. `poison` says how each must end."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import fpdf
from pdf_builder import build_pages, build_pdf, build_stream, nested_forms
from PIL import Image

SQUARE = b"/MediaBox [0 0 200 200]"
HELLO = b"BT /F1 40 Tf 20 80 Td (Hello) Tj ET"
GOOD = (SQUARE, HELLO)
PASSWORD = "s3cret"

_MIB = 1 << 20


def good() -> bytes:
    """One page that says Hello."""
    return build_pages(GOOD)


def _between_good_pages(entries: bytes, content: bytes, *extra: bytes) -> bytes:
    """The bad page is the second of three, so that its neighbours can be watched."""
    return build_pages(GOOD, (SQUARE + entries, content), GOOD, extra=extra)


def _xobject(*extra: bytes) -> bytes:
    return _between_good_pages(b"/Resources << /XObject << /F 4 0 R >> >>", b"/F Do", *extra)


def content_stream_bomb() -> bytes:
    """28 MB of strokes in 30 kB, of which the reader makes objects of a hundred bytes each."""
    bomb = zlib.compress(b"0 0 m 1 1 l S\n" * 2_000_000, 9)
    form = b"/Subtype /Form /BBox [0 0 9 9] /Filter /FlateDecode"
    return _xobject(build_stream(bomb, form))


def zip_bomb() -> bytes:
    """A content stream of 4 GiB of blanks in a few kB: deflated twice."""
    deflate = zlib.compressobj(9)
    head = deflate.compress(b" " * 16 * _MIB) + deflate.flush(zlib.Z_FULL_FLUSH)
    again = deflate.compress(b" " * 16 * _MIB) + deflate.flush(zlib.Z_FULL_FLUSH)
    packed = zlib.compress(head + again * 255 + deflate.flush(), 9)
    stream = build_stream(packed, b"/Filter [/FlateDecode /FlateDecode]")
    page = b"<< /Type /Page /Parent 2 0 R %s /Contents 4 0 R >>" % SQUARE
    tree = [b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>"]
    return build_pdf([*tree, page, stream])


def forms_in_themselves() -> bytes:
    """A form that draws itself twice."""
    entries = b"/Subtype /Form /BBox [0 0 200 200] /Resources << /XObject << /F 4 0 R >> >>"
    return _xobject(build_stream(b"0 0 9 9 re f /F Do /F Do", entries))


def forms_without_end() -> bytes:
    """A form drawn 2^28 times."""
    return _xobject(*nested_forms(28))


def postscript_function() -> bytes:
    """A shading whose colour is a program of 400,000 steps a pixel."""
    program = b"{ pop " + b"dup mul 0.5 add " * 100_000 + b"dup dup }"
    function = build_stream(program, b"/FunctionType 4 /Domain [0 1 0 1] /Range [0 1 0 1 0 1]")
    shading = (
        b"<< /ShadingType 1 /ColorSpace /DeviceRGB /Matrix [200 0 0 200 0 0] /Function 4 0 R >>"
    )
    return _between_good_pages(
        b"/Resources << /Shading << /S 5 0 R >> >>", b"/S sh", function, shading
    )


def tiling_pattern() -> bytes:
    """A page filled with tiles a thousandth of a point wide."""
    pattern = build_stream(
        b"0 0 1 1 re f",
        b"/PatternType 1 /PaintType 1 /TilingType 1 /BBox [0 0 1 1] /XStep 0.001 /YStep 0.001 "
        b"/Resources << >>",
    )
    content = b"/Pattern cs /P scn 0 0 200 200 re f"
    return _between_good_pages(b"/Resources << /Pattern << /P 4 0 R >> >>", content, pattern)


def many_words() -> bytes:
    """A text layer of a million words, invisible as that of a scan, behind a black square."""
    line = b"0 -0.19 Td (" + b"a " * 1000 + b") Tj\n"
    words = b"0 0 99 99 re f BT 3 Tr /F1 0.2 Tf 5 195 Td\n" + line * 1000 + b"ET"
    stream = build_stream(zlib.compress(words, 9), b"/Filter /FlateDecode")
    page = (
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] /Contents 5 0 R "
        b"/Resources << /Font << /F1 4 0 R >> >> >>"
    )
    return build_pdf(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            page,
            b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
            stream,
        ]
    )


def boxed(box: bytes) -> Callable[[], bytes]:
    """A builder of a page with this MediaBox."""
    return lambda: build_pages((b"/MediaBox [%s]" % box, HELLO))


def no_pages() -> bytes:
    """A page tree with no page."""
    return build_pages()


def many_pages() -> bytes:
    """10,000 pages."""
    return build_pages(*[(SQUARE, b"")] * 10_000)


def counting(count: int) -> Callable[[], bytes]:
    """A builder of a document of one page that says it has `count`."""
    return lambda: good().replace(b"/Count 1 ", b"/Count %d " % count)


def cyclic_page_tree() -> bytes:
    """A page tree in which a node is its own child, beside one page."""
    return build_pdf(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Kids [2 0 R 3 0 R] /Count 2 >>",
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] >>",
        ]
    )


def deep_page_tree() -> bytes:
    """One page below 5,000 nodes: pdfium goes down 1,024."""
    depth = 5_000
    nodes = [
        b"<< /Type /Pages /Kids [%d 0 R] /Count 1 /Parent %d 0 R >>" % (number + 1, number - 1)
        for number in range(2, depth + 2)
    ]
    page = b"<< /Type /Page /MediaBox [0 0 200 200] /Parent %d 0 R >>" % (depth + 1)
    return build_pdf([b"<< /Type /Catalog /Pages 2 0 R >>", *nodes, page])


def page_tree_without_end() -> bytes:
    """A page tree that does not say how many pages it has, and unfolds to 2^28."""
    depth = 28
    nodes = [
        b"<< /Type /Pages /Kids [%d 0 R %d 0 R] >>" % (number + 1, number + 1)
        for number in range(2, depth + 2)
    ]
    page = b"<< /Type /Page /MediaBox [0 0 200 200] /Parent 2 0 R >>"
    return build_pdf([b"<< /Type /Catalog /Pages 2 0 R >>", *nodes, page])


def empty_portfolio() -> bytes:
    """A portfolio that holds no file, and no page."""
    return build_pdf(
        [
            b"<< /Type /Catalog /Pages 2 0 R /Collection << /Type /Collection /View /T >> "
            b"/Names << /EmbeddedFiles << /Names [] >> >> >>",
            b"<< /Type /Pages /Kids [] /Count 0 >>",
        ]
    )


def truncated(percent: int) -> Callable[[], bytes]:
    """A builder of the first `percent` of a document of nine pages."""

    def build() -> bytes:
        whole = build_pages(*[GOOD] * 9)
        return whole[: len(whole) * percent // 100]

    return build


def wrong_xref() -> bytes:
    """A sound document whose cross-reference points elsewhere."""
    head, _, tail = good().partition(b"xref\n")
    return head + b"xref\n" + tail.replace(b"00000 n", b"00007 n").replace(b"00000000", b"00000009")


def cut_in_its_trailer() -> bytes:
    """A sound document but for its last bytes: poppler reads it, pdfium does not."""
    return good().partition(b" >>\nstartxref")[0]


def without_trailer() -> bytes:
    """A sound document whose cross-reference and trailer are lost."""
    return good().partition(b"xref\n")[0]


def encrypted(user_password: str | None) -> Callable[[], bytes]:
    """A builder of a document that asks for a password to be read, or (None) only to be changed."""

    def build() -> bytes:
        document = fpdf.FPDF()
        document.add_page()
        document.set_font("Helvetica", size=60)
        document.cell(text="secret")
        document.set_encryption(owner_password="boss", user_password=user_password)
        return bytes(document.output())

    return build


def _with_image(entries: bytes, data: bytes) -> bytes:
    image = build_stream(data, b"/Type /XObject /Subtype /Image /Width 64 /Height 64 " + entries)
    return build_pages(
        (SQUARE + b"/Resources << /XObject << /I 4 0 R >> >>", b"200 0 0 200 0 0 cm /I Do"),
        extra=(image,),
    )


def _half_black() -> Image.Image:
    picture = Image.new("1", (64, 64), 1)
    picture.paste(0, (0, 0, 32, 64))
    return picture


def jpx_image() -> bytes:
    """A page that is a JPEG 2000 image."""
    file = io.BytesIO()
    _half_black().convert("RGB").save(file, "JPEG2000")
    return _with_image(b"/Filter /JPXDecode", file.getvalue())


def cmyk_image() -> bytes:
    """A page that is a JPEG image in CMYK."""
    file = io.BytesIO()
    _half_black().convert("CMYK").save(file, "JPEG")
    entries = b"/ColorSpace /DeviceCMYK /BitsPerComponent 8 /Filter /DCTDecode"
    return _with_image(entries, file.getvalue())


def jbig2_image() -> bytes:
    """A page that is a JBIG2 image: one generic region, coded as a fax of group 4."""
    file = io.BytesIO()
    _half_black().save(file, "TIFF", compression="group4")
    with Image.open(io.BytesIO(file.getvalue())) as tiff:
        (start,), (length,) = tiff.tag_v2[273], tiff.tag_v2[279]
    fax = file.getvalue()[start : start + length]
    page = struct.pack(">IIIIBH", 64, 64, 0, 0, 0, 0)
    region = struct.pack(">IIIIBB", 64, 64, 0, 0, 0, 1) + fax
    segments = b"".join(
        struct.pack(">IBBBI", number, kind, 0, 1, len(data)) + data
        for number, (kind, data) in enumerate([(48, page), (38, region)])
    )
    entries = b"/ColorSpace /DeviceGray /BitsPerComponent 1 /Filter /JBIG2Decode"
    return _with_image(entries, segments)


def jbig2_bomb() -> bytes:
    """A JBIG2 image that says it is 2^31 pixels wide and high."""
    page = struct.pack(">IIIIBH", 2**31 - 1, 2**31 - 1, 0, 0, 0, 0)
    segment = struct.pack(">IBBBI", 0, 48, 0, 1, len(page)) + page
    entries = b"/ColorSpace /DeviceGray /BitsPerComponent 1 /Filter /JBIG2Decode"
    return _with_image(entries, segment)


def html() -> bytes:
    """What a server answers instead of the document."""
    return b"<!DOCTYPE html><html><title>Sign in</title><p>Your session has ended.</html>"
