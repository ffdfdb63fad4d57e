"""Schemas of answers: loading them, and what a run makes of them.

A schema is JSON Schema 2020-12 with an object at the top. The order of its keys is kept, because
it is the order in which the model writes them.
"""

from pipeline.schema.bound import bound_lists
from pipeline.schema.load import Schema, is_path, load_schema, make_schema
from pipeline.schema.prompt import default_prompt
from pipeline.schema.relax import relax
from pipeline.schema.validate import Validator, validate

__all__ = [
    "Schema",
    "Validator",
    "bound_lists",
    "default_prompt",
    "is_path",
    "load_schema",
    "make_schema",
    "relax",
    "validate",
]
