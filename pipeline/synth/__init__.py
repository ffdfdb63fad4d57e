"""The generator of labelled documents, for the demo set, tests and training.

::

    words, values -> receipt -> notation -> till | invoice -> place -> layout -> draw | pdf -> files
                                                                       (lines)   (atlas, effects)

    document: a seed to all of these     dense: a page of anything, to train the eye
    ticket, tickets: another kind of document, to train a trained reader further
    altered: one character changed       demo, corpus: sets of files

All of it follows from a seed: no clock, no global state.
"""
