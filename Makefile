# `make demo` and `make test` are all a user needs; both prepare .venv first.
# PYTHON=/path/to/python3.11 overrides the search for an interpreter.
PYTHON ?=

.PHONY: help setup test quick demo clean

help:
	@echo 'make setup   create .venv and install everything (PYTHON=... picks the interpreter)'
	@echo 'make demo    train both twins on generated landscapes and compare them'
	@echo 'make test    run every test, each framework in its own process'
	@echo 'make quick   run the tests that need no Jittor, in under three minutes'
	@echo 'make clean   remove .venv and build leftovers; keeps runs/ and the kernel cache'

setup:
	@PYTHON='$(PYTHON)' sh scripts/setup.sh

demo: setup
	@.venv/bin/python scripts/demo.py

test: setup
	@.venv/bin/python scripts/run_tests.py

quick: setup
	@.venv/bin/python scripts/run_tests.py neutral torch

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
