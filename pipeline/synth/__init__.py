"""The generator of labelled documents, for the demo set, tests and training.

::

    words -> receipt -> layout -> draw | pdf        (document: a seed to all of these; demo: files)

All of it follows from a seed: no clock, no global state.
"""
