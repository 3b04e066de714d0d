//! End-to-end tests of Tandem; the tests themselves stand in `tests/` beside this file.
