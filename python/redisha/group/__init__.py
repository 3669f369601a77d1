"""A group: several sidecars, each with a Redis of its own, that behave like one Redis.

One member leads: it gives all writes one order, and the others follow. What is decided slowly (who leads, who counts as
in sync) is decided here; the data plane keeps the leaderships apart and moves the bytes.
"""
