"""The sampling rule of a source, as the registry keeps it and the API takes it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

Rate = Annotated[float, Field(gt=0, le=1)]


class SamplingRule(BaseModel):
    """Either a fixed `rate`, or a `targetEventsPerSecond` from which each gateway computes the rate by
    what it measures, never below `floor`. `eventTypes` gives single types fixed rates of their own.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True, frozen=True)

    rate: Rate | None = None
    target: float | None = Field(default=None, gt=0, alias="targetEventsPerSecond")
    floor: Rate = 0.001
    event_types: dict[Annotated[str, Field(min_length=1, max_length=256)], Rate] = Field(
        default_factory=dict, alias="eventTypes", max_length=100
    )

    @model_validator(mode="after")
    def _is_one(self) -> SamplingRule:
        if (self.rate is None) == (self.target is None):
            raise ValueError("give either rate or targetEventsPerSecond; rate 1 keeps all")
        return self

    def stored(self) -> dict[str, Any]:
        """As JSON, in the names of the API."""
        return self.model_dump(by_alias=True, exclude_defaults=True)
