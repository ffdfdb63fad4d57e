"""pagelake turns piles of PDFs into tables.

The stages, in the order a document meets them::

    discover -> rasterize -> encode -> generate -> parse -> write -> assemble

`pipeline.records` holds the nouns that travel between them; read it first.
"""

__version__ = "0.1.0"
