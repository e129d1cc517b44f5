"""The method's claims and ingredients, tested over paired seeds on the test bed: `make claims`."""
