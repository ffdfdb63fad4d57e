"""Builds PDFs object by object, so that a test can make exactly the fault that it is about."""

from __future__ import annotations


def build_pdf(objects: list[bytes]) -> bytes:
    """A PDF of the objects in order, the first being its catalog."""
    pieces = [b"%PDF-1.7\n"]
    offsets = []
    end = len(pieces[0])
    for number, body in enumerate(objects, 1):
        offsets.append(end)
        pieces.append(b"%d 0 obj\n%s\nendobj\n" % (number, body))
        end += len(pieces[-1])
    pieces.append(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    pieces.extend(b"%010d 00000 n \n" % offset for offset in offsets)
    trailer = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n"
    pieces.append(trailer % (len(objects) + 1, end))
    return b"".join(pieces)


def build_stream(content: bytes, entries: bytes = b"") -> bytes:
    """A stream object with `entries` in its dictionary."""
    return b"<< %s /Length %d >>\nstream\n%s\nendstream" % (entries, len(content), content)


def build_pages(*pages: tuple[bytes, bytes], extra: tuple[bytes, ...] = ()) -> bytes:
    """A PDF of pages given as (entries of the page, content stream).

    Font /F1 is Helvetica. `extra` objects are numbered from 4.
    """
    first = 4 + len(extra)
    kids = b" ".join(b"%d 0 R" % (first + 2 * index) for index in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, len(pages)),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        *extra,
    ]
    for entries, content in pages:
        resources = b"" if b"/Resources" in entries else b"/Resources << /Font << /F1 3 0 R >> >>"
        page = b"<< /Type /Page /Parent 2 0 R %s %s /Contents %d 0 R >>"
        objects.append(page % (entries, resources, len(objects) + 2))
        objects.append(build_stream(content))
    return build_pdf(objects)


def nested_forms(depth: int) -> tuple[bytes, ...]:
    """Objects 4 and on: form /F 4 0 R draws the next twice, and so on: 2^depth squares in all."""
    forms = [
        build_stream(
            b"/F Do /F Do",
            b"/Type /XObject /Subtype /Form /BBox [0 0 200 200] "
            b"/Resources << /XObject << /F %d 0 R >> >>" % (number + 1),
        )
        for number in range(4, 4 + depth)
    ]
    return (*forms, build_stream(b"0 0 9 9 re f", b"/Subtype /Form /BBox [0 0 200 200]"))
