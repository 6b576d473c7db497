"""One step each: parse, load, call a pure function, store, return a URI or a small value."""
