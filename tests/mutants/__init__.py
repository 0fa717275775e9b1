"""Tests of tests: the project with one defence taken out at a time, and which test then fails."""
