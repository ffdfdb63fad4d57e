"""Training the bundled reader from scratch.

::

    examples -> feed -> collate -> coach -> optimize      (train: the loop; launch: its processes)

`examples` draws made documents (`pipeline.synth`) and traces every answer to where it is printed;
`coach` holds the losses; `scratch` makes the untrained model, its processor and its folder.
"""
