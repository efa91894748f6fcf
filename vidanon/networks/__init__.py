"""Network definitions and the runtime that runs them; no file of weights is read at import."""
