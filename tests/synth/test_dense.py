from pipeline.synth.dense import dense_page
from pipeline.synth.document import make_document
from pipeline.synth.words import Split


def test_pages_are_full() -> None:
    for seed in range(30):
        layout = dense_page(f"{seed}", Split.TRAIN).layout
        assert len(layout.lines()) >= 9
        assert len(layout.glyphs()) > 120


def test_dense_pages_have_every_character_that_documents_print() -> None:
    dense = {c for seed in range(60) for c in dense_page(f"{seed}", Split.TRAIN).layout.text}
    documents = {
        c for seed in range(300) for c in make_document(f"{seed}", Split.TRAIN).pages[0].layout.text
    }
    assert documents <= dense


def test_all_typefaces_and_many_sizes_are_there() -> None:
    runs = [run for seed in range(60) for run in dense_page(f"{seed}", Split.TRAIN).layout.runs]
    assert len({(run.typeface, run.size) for run in runs}) > 30


def test_the_seed_and_the_split_decide() -> None:
    assert dense_page("x", Split.TRAIN) == dense_page("x", Split.TRAIN)
    assert dense_page("x", Split.TRAIN) != dense_page("y", Split.TRAIN)
    assert dense_page("x", Split.TRAIN).layout != dense_page("x", Split.TEST).layout
