"""Fine-tuning a checkpoint on documents whose answers are known.

::

    data (rows) -> samples (drawn, cached) -> lessons (tokens, labels) -> learner -> result

`data` reads rows, `samples` draws their pages as a run would, `lessons` makes tokens of what a run
would ask and what should be answered; `learner` is the model as it learns, `trainer` the loop,
`result` what is left: weights, or an adapter.
"""
