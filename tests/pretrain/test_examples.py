from __future__ import annotations

import numpy as np

from pipeline.job import Render
from pipeline.models.idefics2.encoder import Idefics2Encoder
from pipeline.pretrain.examples import (
    RECEIPT_SCHEMA,
    TEXT_SCHEMA,
    Geometry,
    Shot,
    answer_example,
    dense_example,
    page_example,
)
from pipeline.pretrain.patches import CHARACTERS, SLOTS
from pipeline.pretrain.tracing import NOWHERE
from pipeline.render.renderer import Renderer
from pipeline.synth.corpus import corpus_documents
from pipeline.synth.files import Kind, look_in_file
from pipeline.synth.words import Split


def test_a_page_is_a_tile_of_the_canvas_with_a_label_for_every_patch(geometry: Geometry) -> None:
    for example in (dense_example(1, geometry), answer_example(1, geometry, 0.0)):
        assert example.tile.shape == (224, 168, 1)
        assert example.tile.dtype == np.uint8
        assert example.characters.shape == (12 * 16, SLOTS)


def test_labels_lie_where_the_ink_is(geometry: Geometry) -> None:
    for number in range(20):
        example = dense_example(number, geometry)
        patches = example.tile[:, :, 0].reshape(16, 14, 12, 14).swapaxes(1, 2).reshape(192, 196)
        spread = patches.max(1).astype(int) - patches.min(1)
        labelled = (example.characters > 0).any(1)
        assert spread[labelled].mean() > spread[~labelled].mean() + 20


def test_the_patches_of_an_answer_hold_its_characters(geometry: Geometry) -> None:
    right = total = 0
    for number in range(30):
        example = answer_example(number, geometry, 1.0)
        answer = example.answer
        assert answer is not None
        assert answer.schema_id == TEXT_SCHEMA
        for character, patch in zip(answer.text, answer.patches, strict=True):
            if patch != NOWHERE and character in CHARACTERS:
                total += 1
                right += 1 + CHARACTERS.index(character) in example.characters[patch]
    assert right / total > 0.97  # thin letters may share a slot


def test_the_share_of_tasks_is_kept_and_numbers_name_documents(geometry: Geometry) -> None:
    asked = [answer_example(number, geometry, 0.3).answer for number in range(60)]
    texts = sum(answer is not None and answer.schema_id == TEXT_SCHEMA for answer in asked)
    assert 8 <= texts <= 30
    assert answer_example(7, geometry, 0.0).answer == answer_example(7, geometry, 0.0).answer
    again = answer_example(7, geometry, 0.0)
    assert again.answer is not None
    assert again.answer.schema_id == RECEIPT_SCHEMA
    assert np.array_equal(again.tile, answer_example(7, geometry, 0.0).tile)


def test_a_page_is_drawn_as_the_pipeline_would_draw_its_file(geometry: Geometry) -> None:
    encoder = Idefics2Encoder(224, 168, splitting=False, canvas=geometry.size)
    differences: dict[Kind, list[float]] = {kind: [] for kind in Kind}
    with Renderer(Render(), encoder.plan_page) as renderer:
        for one in corpus_documents(7, 40, Split.TRAIN):
            renderer.open(one.file().content)
            (shown,) = encoder.encode(renderer.draw(1).image)
            (page,) = one.document.pages
            look = look_in_file(page.look, one.kind, one.suffix)
            shot = Shot.of_file(one.kind, one.scale)
            drawn = page_example(page, look, shot, geometry, RECEIPT_SCHEMA).tile
            differences[one.kind].append(float(np.abs(shown[:, :, :1] - drawn.astype(int)).mean()))
    assert max(differences[Kind.IMAGE]) == 0
    assert np.mean(differences[Kind.SCAN]) < 1
    assert np.mean(differences[Kind.PDF]) < 1.5
