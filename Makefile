# `make demo` and `make test` need Python 3.11 and make, nothing else.
PYTHON ?= python3.11
BIN := .venv/bin
.PHONY: demo test models lint clean

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

models: .venv/installed
	$(BIN)/vidanon models fetch

demo: models
	mkdir -p demo
	$(BIN)/vidanon anonymize "$$($(BIN)/vidanon models path sample-clip)" -o demo/sample.anon.mp4
	@echo "The result is in $(CURDIR)/demo/sample.anon.mp4"

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint models
	$(BIN)/python -m pytest

clean:
	rm -rf .venv demo
