"""JSON Schema from a pydantic model that a job names as "module:Model"."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel
from pydantic.errors import PydanticUserError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from pipeline.errors import SchemaError

_KEYWORDS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
}


class _AnswerSchema(GenerateJsonSchema):
    """Pydantic takes a Decimal as a number or a string; a model's answer is always a number."""

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        number: JsonSchemaValue = {"type": "number"}
        if (places := schema.get("decimal_places")) is not None:
            number["multipleOf"] = float(f"1e-{places}")
        given = cast("dict[str, Any]", schema)
        bounds = {word: given.get(name) for name, word in _KEYWORDS.items()}
        return number | {word: float(bound) for word, bound in bounds.items() if bound is not None}


def document_of(ref: str) -> dict[str, Any]:
    """Import "module:Model", from the current folder too, and return its JSON Schema.

    Raises SchemaError if the module or the model cannot be had, or has no JSON Schema.
    """
    module_name, _, attribute = ref.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        model: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            model = getattr(model, part)
    except ModuleNotFoundError as error:
        raise SchemaError(
            f"schema {ref}: no module {error.name}; install it or run beside it"
        ) from None
    except AttributeError:
        raise SchemaError(f"schema {ref}: module {module_name} has no {attribute}") from None
    except Exception as error:
        raise SchemaError(f"schema {ref}: importing {module_name} failed: {error!r}") from None
    finally:
        sys.path.remove(here)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise SchemaError(f"schema {ref}: {attribute} is not a pydantic model; derive BaseModel")
    try:
        return model.model_json_schema(schema_generator=_AnswerSchema)
    except PydanticUserError as error:
        line = str(error).splitlines()[0]
        raise SchemaError(f"schema {ref}: has no JSON Schema: {line}; change the field") from None
