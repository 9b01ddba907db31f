"""What tests import: helpers, cases and oracles."""
