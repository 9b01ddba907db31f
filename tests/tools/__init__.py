"""Programs that test for longer, or elsewhere, than pytest does."""
