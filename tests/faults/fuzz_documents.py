"""Mutated documents through discover, plan, rasterize and encode."""

from __future__ import annotations

import functools
import io
import os
import random
import shutil
import tempfile
import zlib
from pathlib import Path

import fpdf
import mutate
import poison_images
import poison_pdf as pdf
import psutil
from fuzz_frame import Escape, require_one_line
from pdf_builder import build_pages, build_stream, nested_forms
from PIL import Image
from poison import LIMITS

from pipeline.errors import ItemError
from pipeline.job import Input
from pipeline.models.idefics2.encoder import Idefics2Encoder
from pipeline.records import Failure, Page, Plan, SampleId
from pipeline.render.renderer import Renderer
from pipeline.stages.discover import discover
from pipeline.stages.encode import encode
from pipeline.stages.plan import plan, shards
from pipeline.stages.rasterize import OpenDocument, rasterize

_DEMO = Path(__file__).parents[2] / "jobs" / "demo" / "documents"
_FONTS = Path(__file__).parents[2] / "pipeline" / "synth" / "fonts"
_PAGES = 3
_GOOD_EVERY = 10
_DEADLY = ("render_timeout", "render_crash", "render_memory")


def _rich() -> bytes:
    """Fonts, an image, a link, a table of contents: what writers of PDF usually make."""
    document = fpdf.FPDF(format=(200, 200))
    document.add_font("mono", fname=str(_FONTS / "LiberationMono-Regular.ttf"))
    for number in range(2):
        document.add_page()
        document.set_font("mono", size=12)
        document.cell(text=f"Total {number}.50 \u20ac", link="https://example.org")
        document.image(Image.linear_gradient("L").convert("RGBA"), w=40)
        document.start_section(f"part {number}")
    return bytes(document.output())


def _fields() -> bytes:
    """A form with a filled field, and an annotation with an appearance."""
    look = build_stream(b"BT /F1 9 Tf 2 2 Td (ok) Tj ET", b"/Subtype /Form /BBox [0 0 50 20]")
    field = (
        b"<< /Type /Annot /Subtype /Widget /FT /Tx /T (a) /V (filled) /Rect [10 10 90 30] /F 4 "
        b"/DA (/Helv 9 Tf 0 g) /AP << /N 4 0 R >> >>"
    )
    stamp = b"<< /Type /Annot /Subtype /Stamp /Rect [10 50 90 90] /AP << /N 4 0 R >> >>"
    whole = build_pages(
        (pdf.SQUARE + b"/Annots [5 0 R 6 0 R]", pdf.HELLO), extra=(look, field, stamp)
    )
    form = b"/Type /Catalog /AcroForm << /Fields [5 0 R] /NeedAppearances true >> "
    return whole.replace(b"/Type /Catalog ", form, 1)


def _packed_objects() -> bytes:
    """Object streams and a compressed cross-reference."""
    bodies = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] /Contents 5 0 R /Resources "
        b"<< /Font << /F1 4 0 R >> >> >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    starts = [sum(map(len, bodies[:index])) + index for index in range(len(bodies))]
    index = b" ".join(b"%d %d" % pair for pair in enumerate(starts, 1)) + b" "
    inside = zlib.compress(index + b"\n".join(bodies))
    entries = b"/Type /ObjStm /N 4 /First %d /Filter /FlateDecode" % len(index)
    head = b"%PDF-1.7\n"
    contents = b"5 0 obj\n%s\nendobj\n" % build_stream(pdf.HELLO)
    objects = b"6 0 obj\n%s\nendobj\n" % build_stream(inside, entries)
    at, then = len(head), len(head) + len(contents)
    rows = [(0, 0, 255), *((2, 6, number) for number in range(4)), (1, at, 0), (1, then, 0)]
    rows.append((1, then + len(objects), 0))
    table = b"".join(bytes((kind, place >> 8, place & 255, last)) for kind, place, last in rows)
    entries = b"/Type /XRef /Size 8 /W [1 2 1] /Root 1 0 R /Filter /FlateDecode"
    xref = b"7 0 obj\n%s\nendobj\n" % build_stream(zlib.compress(table), entries)
    return head + contents + objects + xref + b"startxref\n%d\n%%%%EOF\n" % (then + len(objects))


def _painted() -> bytes:
    """A shading, a tiling pattern, a function and a transparent group, all of modest cost."""
    function = build_stream(
        b"{ dup 0.5 mul exch }", b"/FunctionType 4 /Domain [0 1] /Range [0 1 0 1]"
    )
    ramp = b"<< /FunctionType 2 /Domain [0 1] /C0 [1 0 0] /C1 [0 0 1] /N 1 >>"
    shading = b"<< /ShadingType 2 /ColorSpace /DeviceRGB /Coords [0 0 200 0] /Function 5 0 R >>"
    tile = build_stream(
        b"0 0 5 5 re f",
        b"/PatternType 1 /PaintType 1 /TilingType 1 /BBox [0 0 9 9] /XStep 9 /YStep 9 "
        b"/Resources << >>",
    )
    group = build_stream(
        b"1 0 0 rg 9 9 99 99 re f",
        b"/Subtype /Form /BBox [0 0 200 200] /Group << /S /Transparency /I true /K true >>",
    )
    resources = (
        b"/Resources << /Shading << /S 6 0 R >> /Pattern << /P 7 0 R >> /XObject << /F 8 0 R >> "
        b"/ExtGState << /G << /ca 0.5 /BM /Multiply >> >> >>"
    )
    content = b"/S sh /G gs /Pattern cs /P scn 20 20 90 90 re f /F Do"
    return build_pages(
        (pdf.SQUARE + resources, content), extra=(function, ramp, shading, tile, group)
    )


def _picture(format: str, mode: str = "RGB", **options: object) -> bytes:
    file = io.BytesIO()
    picture = Image.linear_gradient("L").resize((64, 48)).convert(mode)
    picture.save(file, format, **options)
    return file.getvalue()


def _frames() -> bytes:
    file = io.BytesIO()
    frames = [Image.linear_gradient("L").resize((40, 30 + 10 * index)) for index in range(3)]
    frames[0].save(file, "TIFF", save_all=True, append_images=frames[1:], compression="tiff_lzw")
    return file.getvalue()


@functools.cache
def seeds() -> tuple[bytes, ...]:
    """Small sound files, and the hostile ones that cost little."""
    pdfs = (
        *(
            pdf.good(),
            build_pages(*[pdf.GOOD] * 3),
            _rich(),
            _fields(),
            _packed_objects(),
            _painted(),
        ),
        *(pdf.jpx_image(), pdf.jbig2_image(), pdf.cmyk_image(), pdf.jbig2_bomb()),
        *(pdf.encrypted(None)(), pdf.encrypted(pdf.PASSWORD)(), pdf.counting(3)()),
        *(pdf.cyclic_page_tree(), pdf.cut_in_its_trailer(), pdf.boxed(b"0 0 1e9 1e9")()),
        build_pages(
            (pdf.SQUARE + b"/Resources << /XObject << /F 4 0 R >> >>", b"/F Do"),
            extra=nested_forms(3),
        ),
        *((_DEMO / name).read_bytes() for name in ("pdf-01.pdf", "scan-02.pdf")),
    )
    images = (
        *(_picture("PNG"), _picture("PNG", "P"), _picture("PNG", "LA"), _picture("PNG", "1")),
        *(_picture("JPEG"), _picture("JPEG", "L", progressive=True), _picture("JPEG", "CMYK")),
        *(_picture("WEBP"), _picture("WEBP", "RGBA", lossless=True), _frames()),
        *(_picture("TIFF", compression="jpeg"), _picture("TIFF", "1", compression="group4")),
        *(poison_images.tiff_cycle(), poison_images.jpeg_bomb()),
    )
    return (*pdfs, *images)


class Documents:
    """One document a case. One case in `poppler_every` may be tried by poppler, if there is one."""

    name = "document"

    def __init__(self, poppler_every: int = 25) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        (self._folder / "bin").mkdir()
        self._poppler_every = poppler_every
        self._paths = str(self._folder / "bin"), os.environ["PATH"]
        self._encoder = Idefics2Encoder(longest_edge=96, shortest_edge=40, splitting=False)
        self._renderers = [
            Renderer(LIMITS, self._encoder.plan_page, pdf.PASSWORD) for _ in range(2)
        ]
        self._n_judged = 0
        os.environ["PATH"] = self._paths[0]
        self._good = self._good_page(self._renderers[0])

    def make(self, chance: random.Random) -> tuple[str, bytes]:
        data, other = chance.choice(seeds()), chance.choice(seeds())
        kinds = (
            [mutate.BYTES, mutate.PDF, mutate.PDF] if data.startswith(b"%PDF") else [mutate.BYTES]
        )
        name, mutator = chance.choice(list(chance.choice(kinds).items()))
        return name, mutator(chance, data, other)

    def judge(self, case: bytes) -> str:
        self._n_judged += 1
        with_poppler = zlib.crc32(case) % self._poppler_every == 0
        os.environ["PATH"] = self._paths[with_poppler]
        renderer = self._renderers[with_poppler]
        path = self._folder / "case.pdf"
        path.write_bytes(case)
        (document,) = discover(Input(paths=(str(path),)))
        planned = plan(document, renderer, None, 5000)
        ends = [self._end(item) for item in self._items(planned, renderer)]
        if planned.failure is not None:
            ends = [f"plan: {self._end(planned.failure)}"]
        if self._n_judged % _GOOD_EVERY == 0 or any(end.endswith(_DEADLY) for end in ends):
            self._require_good(renderer)
        return " ".join(dict.fromkeys(ends)) + (" (poppler)" if with_poppler else "")

    def _items(self, planned: Plan, renderer: Renderer) -> list[Page | Failure]:
        todo = planned.page_numbers[:_PAGES]
        windows = [window for shard in shards([(planned, todo)]) for window in shard.windows]
        document = OpenDocument(renderer)
        items = [item for window in windows for item in rasterize(window, document)]
        if (planned.failure is None) != (len(items) > 0) or len(items) != len(todo):
            raise Escape(f"{len(todo)} pages planned, {len(items)} ended; {planned.failure}")
        for number, item in zip(todo, items, strict=True):
            if isinstance(item, Page):
                if item.number != number:
                    raise Escape(f"page {item.number} in place of {number}")
                self._encode(planned, item)
        return items

    def _encode(self, planned: Plan, page: Page) -> None:
        sample_id = SampleId(planned.document_id or "", "", planned.n_pages or 0, (page.number,))
        try:
            encode(sample_id, (page,), self._encoder)
        except ItemError as error:
            require_one_line(error.message, 300)
        for word in page.words:
            word.text.encode()
            if not (0 <= word.left <= word.right and 0 <= word.top <= word.bottom):
                raise Escape(f"a word's box: {word}")

    def _end(self, item: Page | Failure) -> str:
        if isinstance(item, Page):
            return "drawn"
        require_one_line(item.message, 300)
        if str(self._folder) in item.message or pdf.PASSWORD in item.message:
            raise Escape(f"the message tells too much: {item.message}")
        return item.kind.value

    def _good_page(self, renderer: Renderer) -> bytes:
        renderer.open(pdf.good())
        page = renderer.draw(1)
        return page.image.tobytes() + repr(page.words).encode()

    def _require_good(self, renderer: Renderer) -> None:
        if self._good_page(renderer) != self._good:
            raise Escape("a good document comes out otherwise now")

    def close(self) -> None:
        for renderer in self._renderers:
            renderer.close()
        os.environ["PATH"] = self._paths[1]
        shutil.rmtree(self._folder)
        left = psutil.Process().children(recursive=True)
        if left:
            raise Escape(f"processes are left: {left}")
