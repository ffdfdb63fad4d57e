"""Turns a document into page images, in a process that a bad document may kill.

`renderer` is the way in. The parent's side is `renderer` and `process`; the child's side is `child`
and one module a format: `pdfium` (with `words`), `poppler`, `images`. Both share `messages`.
"""
