"""Gold: aggregates of silver, hour by hour, each made anew from a pinned version of it."""
