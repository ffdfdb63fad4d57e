"""What a user does about each kind of failure."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.records import FailureKind

REMEDIES: Mapping[FailureKind, str] = {
    FailureKind.SOURCE_MISSING: "The file is gone or may not be read; restore it and run again.",
    FailureKind.SOURCE_CHANGED: "The file changed while the run was reading it; run again.",
    FailureKind.SOURCE_TOO_LARGE: "The web address gives more than input.http_max_mb; raise it.",
    FailureKind.UNREADABLE: "The file is damaged; repair it (for a PDF, qpdf may help).",
    FailureKind.UNSUPPORTED: "Not a PDF, PNG, JPEG, WebP or TIFF, or without text where the prompt "
    "shows text alone; convert it, or add {page} to the prompt.",
    FailureKind.ENCRYPTED: "A password is needed; name an environment variable in "
    "input.password_env.",
    FailureKind.EMPTY: "The document has no page, or none that the page selection asks for.",
    FailureKind.TOO_MANY_PAGES: "Raise input.max_pages, or select pages with input.pages.",
    FailureKind.RENDER_TIMEOUT: "Drawing the page took too long; raise render.cpu_s or exclude it.",
    FailureKind.RENDER_CRASH: "The renderer died on the page; try render.renderer: poppler.",
    FailureKind.RENDER_MEMORY: "The page needs too much memory; raise render.memory_mb.",
    FailureKind.OUT_OF_MEMORY: "The model ran out of memory on this sample; lower resources.batch.",
    FailureKind.MODEL_ERROR: "The model step failed on this sample; the message says how.",
    FailureKind.MODEL_CRASH: "The model's process died of this sample, alone too; exclude it.",
    FailureKind.MODEL_TIMEOUT: "The model hung on this sample, alone too; raise limits.item_s.",
    FailureKind.STAGE_CRASH: "A worker died at this item each time; exclude it, or "
    "free memory if the machine was short of it.",
    FailureKind.STAGE_TIMEOUT: "A stage did not end on this item; raise limits.item_s.",
    FailureKind.TRUNCATED: "The answer hit the token limit, or a list its bound; raise "
    "generation.max_new_tokens or generation.max_items.",
    FailureKind.INVALID_JSON: "The answer is not JSON; generation.constrained: true prevents most.",
    FailureKind.SCHEMA_VIOLATION: "The answer breaks the schema; the message names the place.",
}
