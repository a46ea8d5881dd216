"""What an event is, what may be wrong with one, and the tables it ends in. Pure; shared by all."""
